/* The ledger between processes and threads, and under kills. See units.h. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memory/claims.h"
#include "memory/ledger.h"
#include "memory/loans.h"
#include "prim/prim.h"
#include "units.h"

static hami_ledger *ledger;
static int slot;
static long storm_rounds;
#define LIMIT ((int64_t)4 << 30)

static int64_t slots_sum(int card)
{
    int64_t sum = 0;
    for (int i = 0; i < HAMI_SLOTS; i++) {
        sum += atomic_load(&ledger->slots[i].pid) == 0 ? 0 : ledger->slots[i].cards[card].loans;
        for (int kind = 0; kind < HAMI_KINDS; kind++)
            sum += atomic_load(&ledger->slots[i].pid) == 0 ? 0 : ledger->slots[i].cards[card].held[kind];
    }
    return sum;
}

static bool lending; /* what is orphaned is held whatever the limit */

/* Borrows of whoever offers, and offers 1 MiB; others die while it does. */
static void lend_round(int key)
{
    hami_loan offer;
    const uint64_t name = (uint64_t)(key & 7) + 1;
    if (hami_ledger_reserve(ledger, slot, 0, HAMI_VMM, 1 << 20, LIMIT))
        hami_loan_offer(ledger, slot, 0, name, 1 << 20);
    const bool there = hami_loan_find(ledger, name, &offer);
    const int row = there ? hami_loan_take(ledger, slot, offer.owner - 1, 0, name, offer.bytes) : -1;
    hami_loan_end(ledger, slot, 0, name, HAMI_VMM, 1 << 20);
    if (row >= 0)
        hami_loan_return(ledger, slot, row);
}

static void *storm_thread(void *unused)
{
    uint64_t mine = (uint64_t)(uintptr_t)&mine ^ (uint64_t)getpid() << 32;
    int64_t held[8] = {0};
    for (long i = 0; i < storm_rounds; i++) {
        mine = mine * 6364136223846793005u + 1442695040888963407u;
        const int at = (int)(mine >> 40 & 7);
        if (lending && (mine >> 50 & 15) == 0)
            lend_round((int)(mine >> 60));
        if (held[at] == 0) {
            const int64_t bytes = (int64_t)(1 + (mine >> 33) % 512) << 20;
            if (hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, bytes, LIMIT))
                held[at] = bytes;
        } else {
            hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, held[at]);
            held[at] = 0;
        }
        const int64_t now = hami_ledger_held(ledger, 0);
        CHECK(now >= 0 && (lending || now <= LIMIT));
    }
    for (int at = 0; at < 8; at++)
        hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, held[at]);
    return unused;
}

static void threads(int count)
{
    pthread_t running[64];
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&running[i], NULL, storm_thread, NULL) == 0);
    for (int i = 0; i < count; i++)
        pthread_join(running[i], NULL);
}

/*
 * As a program that returns from main while another thread takes and gives: what is called at its end may find the lock had. Not under TSan, which does
 * not know that who waits for a time may get the lock of a dead owner.
 */
static void end_at_work(void)
{
#ifdef __SANITIZE_THREAD__
    _exit(0);
#endif
    pthread_t working;
    const struct timespec nap = {.tv_nsec = (long)(dice() % 2000000)};
    storm_rounds = 1000000000;
    CHECK(pthread_create(&working, NULL, storm_thread, NULL) == 0 && pthread_detach(working) == 0);
    nanosleep(&nap, NULL);
    exit(0);
}

static void open_ledger(const char *path)
{
    const int error = hami_ledger_open(path, &ledger, &slot);
    if (error != 0) {
        printf("ledger: %s\n", strerror(-error));
        exit(1);
    }
    CHECK(hami_ledger_card_index(ledger, "GPU-storm", LIMIT, 50) == 0);
}

void storm(const char *path, int processes, int thread_count, long rounds)
{
    storm_rounds = rounds;
    for (int i = 0; i < processes; i++) {
        if (fork() == 0) {
            open_ledger(path);
            threads(thread_count);
            end_at_work();
        }
    }
    int status = 0, failed = 0;
    while (wait(&status) > 0)
        failed += status != 0;
    CHECK(failed == 0);
    open_ledger(path);
    hami_ledger_reap(ledger);
    CHECK(hami_ledger_held(ledger, 0) == 0 && slots_sum(0) == 0 && ledger->cards[0].peak <= LIMIT);
}

/* Whose slot it is: of a pid that another process has now, it is a dead one's; of another pid namespace, nothing is known. */
static int go_on[2];

static void *live_on(void *unused)
{
    char letter;
    CHECK(read(go_on[0], &letter, 1) == 1);
    _exit(0);
    return unused;
}

static char state_of(pid_t pid)
{
    char path[40], text[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const ssize_t length = hami_read_file(path, text, sizeof text - 1);
    const char *name = length > 0 ? strrchr(text, ')') : NULL;
    return name == NULL ? '?' : name[2];
}

static void wait_for_state(pid_t pid, char state)
{
    while (state_of(pid) != state)
        hami_sleep_coarse_ns(1000000);
}

/* As a program whose first thread ends while others work: what the kernel says of the process is what it says of a dead one that nobody has waited for. */
static void first_thread_ends(void)
{
    CHECK(pipe(go_on) == 0);
    const pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        CHECK(hami_ledger_join(ledger, &slot) == 0 && hami_ledger_reserve(ledger, slot, 1, HAMI_BUFFER, 1 << 20, LIMIT));
        CHECK(pthread_create(&thread, NULL, live_on, NULL) == 0);
        pthread_exit(NULL);
    }
    wait_for_state(child, 'Z');
    CHECK(hami_ledger_reap(ledger) == 0 && hami_ledger_held(ledger, 1) == 1 << 20);
    CHECK(write(go_on[1], "x", 1) == 1);
    while (hami_ledger_reap(ledger) == 0) /* before it is waited for */
        hami_sleep_coarse_ns(1000000);
    int status = 0;
    CHECK(hami_ledger_held(ledger, 1) == 0 && waitpid(child, &status, 0) == child && status == 0);
}

void slots(const char *path)
{
    open_ledger(path);
    const uint64_t here = hami_pid_namespace(), start = hami_process_start(getppid());
    const struct {
        int32_t pid;
        uint64_t start, space;
        bool dead;
    } cases[] = {{getppid(), start, here, false}, {getppid(), start + 12345, here, true}, {0x3ffffff, 1, here, true}, {0x3ffffff, 1, here + 1, false}};
    CHECK(hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, 1 << 20, LIMIT));
    hami_slot *other = &ledger->slots[slot + 1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        other->start = cases[i].start;
        other->pid_namespace = cases[i].space;
        atomic_store(&other->pid, cases[i].pid);
        CHECK(hami_ledger_reap(ledger) == (cases[i].dead ? 1 : 0));
        CHECK((atomic_load(&other->pid) == 0) == cases[i].dead);
        atomic_store(&other->pid, 0);
    }
    /* Nobody else's slot has moved, nor lost what it holds. */
    CHECK(atomic_load(&ledger->slots[slot].pid) == getpid() && hami_ledger_own(ledger, slot, 0) == 1 << 20);
    /* A process is on the cards of which it holds something, as its context there, and on no other. */
    other->pid_namespace = hami_pid_namespace() + 1;
    atomic_store(&other->pid, 1);
    CHECK(hami_ledger_processes(ledger, 0) == 1 && hami_ledger_processes(ledger, 1) == 0);
    CHECK(hami_ledger_reserve(ledger, slot + 1, 1, HAMI_CONTEXT, 1 << 20, LIMIT));
    CHECK(hami_ledger_processes(ledger, 0) == 1 && hami_ledger_processes(ledger, 1) == 1);
    CHECK(hami_ledger_reserve(ledger, slot + 1, 0, HAMI_CONTEXT, 1 << 20, LIMIT));
    CHECK(hami_ledger_processes(ledger, 0) == 2);
    hami_ledger_leave(ledger, slot + 1);
    CHECK(hami_ledger_processes(ledger, 0) == 1 && hami_ledger_processes(ledger, 1) == 0);
    first_thread_ends();
}

/* What is lent is held all the time, and once: by its owner, then by one of those who have it, then by nobody. */
void loans(const char *path)
{
    enum { KEY = 7, CARD = 0, BYTES = 1 << 20 };
    hami_loan offer;
    int others[2], rows[2];
    open_ledger(path);
    if (fork() == 0) { /* the owner, whose death nobody has seen yet */
        CHECK(hami_ledger_join(ledger, &slot) == 0 && hami_ledger_reserve(ledger, slot, CARD, HAMI_BUFFER, BYTES, LIMIT));
        hami_loan_offer(ledger, slot, CARD, KEY, BYTES);
        _exit(0);
    }
    wait(NULL);
    CHECK(hami_loan_find(ledger, KEY, &offer) && offer.bytes == BYTES && !hami_loan_find(ledger, KEY + 1, &offer));
    for (int i = 0; i < 2; i++) {
        others[i] = slot + 100 + i; /* of processes that cannot be told dead: as of another pid namespace */
        ledger->slots[others[i]].pid_namespace = hami_pid_namespace() + 1;
        atomic_store(&ledger->slots[others[i]].pid, 1);
        rows[i] = hami_loan_take(ledger, others[i], offer.owner - 1, CARD, KEY, BYTES);
        CHECK(rows[i] >= 0 && hami_ledger_held(ledger, CARD) == BYTES);
    }
    CHECK(hami_ledger_reap(ledger) == 1 && !hami_loan_find(ledger, KEY, &offer));
    CHECK(hami_ledger_held(ledger, CARD) == BYTES && hami_ledger_own(ledger, others[0], CARD) == BYTES);
    hami_loan_return(ledger, others[1], rows[0]); /* not its own */
    CHECK(hami_ledger_own(ledger, others[0], CARD) == BYTES);
    hami_ledger_leave(ledger, others[0]);
    CHECK(hami_ledger_held(ledger, CARD) == BYTES && hami_ledger_own(ledger, others[1], CARD) == BYTES);
    hami_loan_return(ledger, others[1], rows[1]);
    CHECK(hami_ledger_held(ledger, CARD) == 0 && slots_sum(CARD) == 0);
    /* Freed by an owner that lives: the same. Two under one key are two. */
    CHECK(hami_ledger_reserve(ledger, slot, CARD, HAMI_VMM, 2 * BYTES, LIMIT));
    for (int i = 0; i < 2; i++)
        rows[i] = hami_loan_take(ledger, others[1], slot, CARD, KEY, BYTES);
    for (int freed = 1; freed <= 2; freed++) {
        hami_loan_end(ledger, slot, CARD, KEY, HAMI_VMM, BYTES);
        CHECK(hami_ledger_held(ledger, CARD) == 2 * BYTES && hami_ledger_own(ledger, others[1], CARD) == freed * BYTES);
    }
    hami_loan_return(ledger, others[1], rows[0]);
    CHECK(hami_ledger_held(ledger, CARD) == BYTES);
    hami_loan_return(ledger, others[1], rows[1]);
    CHECK(hami_ledger_held(ledger, CARD) == 0);
}

static int inside; /* not atomic: TSan is to see who comes in unasked */

static void *claim_thread(void *unused)
{
    for (int i = 0; i < 20; i++) {
        CHECK(hami_ledger_claim(ledger, slot, 0, (int64_t)60 * 1000000000));
        CHECK(inside++ == 0);
        CHECK(--inside == 0);
        hami_ledger_unclaim(ledger, slot, 0);
    }
    return unused;
}

/* One caller at a time, of threads and of processes; who dies with the claim gives it up, and who leaves the ledger. */
void claims(const char *path)
{
    pthread_t running[8];
    open_ledger(path);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&running[i], NULL, claim_thread, NULL) == 0);
    for (int i = 0; i < 8; i++)
        pthread_join(running[i], NULL);
    for (int leaves = 0; leaves < 2; leaves++) {
        if (fork() == 0) {
            CHECK(hami_ledger_join(ledger, &slot) == 0 && hami_ledger_claim(ledger, slot, 0, 0));
            if (leaves)
                hami_ledger_leave(ledger, slot);
            _exit(0);
        }
        int status = 0;
        CHECK(wait(&status) > 0 && status == 0 && (ledger->cards[0].claimant == 0) == leaves);
        CHECK(hami_ledger_claim(ledger, slot, 0, 0));
        CHECK(!hami_ledger_claim(ledger, slot, 0, 1000000)); /* nor ourselves a second time */
        hami_ledger_unclaim(ledger, slot, 0);
    }
    ledger->cards[0].claimant = 99999; /* as a tenant may write */
    CHECK(hami_ledger_claim(ledger, slot, 0, 0));
}

enum { AT_ONCE = 4 };

/* Time a process was ready to run and had no processor, ns; 0 where the kernel does not say. */
static int64_t kept_waiting_ns(pid_t pid)
{
    char path[40];
    long long ran = 0, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%lld %lld", &ran, &waited) != 2)
            waited = 0;
        fclose(file);
    }
    return waited;
}

/* How long the lock keeps us, less what we and the victims, of whom any may have held it, stood in line for a processor. */
static int64_t one_wait_ns(const pid_t *victims)
{
    int64_t before[AT_ONCE + 1], kept = 0;
    for (int i = 0; i < AT_ONCE; i++)
        before[i] = victims[i] == 0 ? 0 : kept_waiting_ns(victims[i]);
    before[AT_ONCE] = kept_waiting_ns(getpid());
    const int64_t from = hami_now_ns();
    if (hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, 1 << 20, LIMIT))
        hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, 1 << 20);
    const int64_t took = hami_now_ns() - from;
    for (int i = 0; i < AT_ONCE; i++)
        kept += victims[i] == 0 ? 0 : kept_waiting_ns(victims[i]) - before[i];
    return took - kept - (kept_waiting_ns(getpid()) - before[AT_ONCE]);
}

static void end(pid_t victim)
{
    int status = 0;
    kill(victim, SIGKILL);
    CHECK(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status)); /* and not by a check of its own */
}

/* Victims that reserve and release as fast as they can are killed anywhere; nothing may be lost, nobody may wait. */
void kills(const char *path, int count)
{
    pid_t victims[AT_ONCE] = {0};
    int64_t slowest = 0;
    storm_rounds = 1000000000;
    lending = true;
    open_ledger(path);
    for (int i = 0; i < count; i++) {
        pid_t *victim = &victims[i % AT_ONCE];
        if (*victim != 0)
            end(*victim);
        *victim = fork();
        if (*victim == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever is told to stop these tests stops all of them */
            open_ledger(path);
            storm_thread(NULL);
            _exit(0);
        }
        const struct timespec nap = {.tv_nsec = (long)(dice() % 400000)};
        nanosleep(&nap, NULL);
        const int64_t waited = one_wait_ns(victims);
        slowest = waited > slowest ? waited : slowest;
    }
    for (int i = 0; i < AT_ONCE; i++)
        end(victims[i]);
    hami_ledger_reap(ledger);
    CHECK(hami_ledger_held(ledger, 0) == 0 && slots_sum(0) == 0);
    for (int i = 0; i < HAMI_LOANS; i++)
        CHECK(ledger->loans[i].owner == 0 && ledger->loans[i].borrower == 0);
    printf("%d kills, 0 bytes lost, longest wait %.1f ms\n", count, (double)slowest / 1e6);
    CHECK(slowest < 1000000000);
}
