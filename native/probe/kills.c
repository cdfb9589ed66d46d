/* Processes that are killed anywhere, beside a neighbour that must not wait for them. See probe.h. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { AT_ONCE = 4, LONGEST_LIFE_US = 6000 };

typedef struct {
    _Atomic int over;
    _Atomic int64_t longest_ns, rounds;
    _Atomic pid_t victims[AT_ONCE]; /* 0: none */
} shared_page;

/* Time that process was ready to run and had no processor, ns: that is no fault of anybody's lock. 0: it is gone. */
static int64_t kept_waiting_ns(pid_t pid)
{
    char path[40];
    long long ran = 0, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%lld %lld", &ran, &waited) != 2)
        waited = 0;
    if (file != NULL)
        fclose(file);
    return waited;
}

static void take_and_give(CUstream stream)
{
    static CUdeviceptr held[8];
    const int at = rand() % 8;
    if (held[at] == 0 && cu.cuMemAlloc(&held[at], (size_t)(1 + rand() % 16) * 2 * MIB) != CUDA_SUCCESS)
        held[at] = 0;
    else if (held[at] != 0 && rand() % 2 && cu.cuMemFree(held[at]) == CUDA_SUCCESS)
        held[at] = 0;
    if (rand() % 4 == 0)
        launch_spin(rounds_of(2000), stream);
}

static void live(int seed)
{
    CUstream stream;
    srand((unsigned int)seed);
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    for (;;)
        take_and_give(stream);
}

/* How long a call takes, less what we and the victims, of whom any may have held a lock, stood in line for a processor. */
static int64_t one_wait_ns(const shared_page *page)
{
    CUdeviceptr p;
    pid_t line[AT_ONCE + 1] = {[AT_ONCE] = getpid()};
    int64_t before[AT_ONCE + 1];
    for (int i = 0; i <= AT_ONCE; i++) {
        line[i] = i < AT_ONCE ? page->victims[i] : line[i];
        before[i] = kept_waiting_ns(line[i]);
    }
    const int64_t from = now_ns();
    if (cu.cuMemAlloc(&p, 2 * MIB) == CUDA_SUCCESS)
        MUST(cuMemFree, p);
    int64_t took = now_ns() - from;
    for (int i = 0; i <= AT_ONCE; i++) {
        const int64_t kept = kept_waiting_ns(line[i]) - before[i];
        took -= kept > 0 ? kept : 0; /* who was killed meanwhile counts for nothing */
    }
    return took;
}

static void be_neighbour(shared_page *page)
{
    start(false);
    while (!page->over) {
        const int64_t took = one_wait_ns(page);
        page->longest_ns = took > page->longest_ns ? took : page->longest_ns;
        page->rounds++;
        usleep(500);
    }
    _exit(0);
}

static pid_t begin(int seed)
{
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it would go on for ever */
        live(seed);
    }
    if (child < 0)
        fail("fork", 0);
    return child;
}

static void end(pid_t victim)
{
    int status = 0;
    kill(victim, SIGKILL);
    if (waitpid(victim, &status, 0) != victim || !WIFSIGNALED(status))
        fail("a process ended by itself", status);
}

/* The parent starts no CUDA: each child starts its own. */
void kills(int count)
{
    pid_t victims[AT_ONCE] = {0};
    shared_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const pid_t neighbour = page == MAP_FAILED ? -1 : fork();
    if (neighbour == 0)
        be_neighbour(page);
    if (neighbour < 0)
        fail("fork", 0);
    for (int i = 0; i < count; i++) {
        pid_t *victim = &victims[i % AT_ONCE];
        if (*victim != 0)
            end(*victim);
        page->victims[i % AT_ONCE] = *victim = begin(i);
        usleep((useconds_t)(rand() % (LONGEST_LIFE_US / AT_ONCE)));
    }
    for (int i = 0; i < AT_ONCE; i++) {
        if (victims[i] != 0)
            end(victims[i]);
    }
    page->over = 1;
    int status = 0;
    waitpid(neighbour, &status, 0);
    printf("{\"kills\": %d, \"longest_wait_ms\": %.1f, \"neighbour_rounds\": %lld, \"neighbour_ended\": %d}\n", count,
           (double)page->longest_ns / 1e6, (long long)page->rounds, status);
}
