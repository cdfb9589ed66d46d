/*
 * A program whose launches do not return as they were called: threads are cancelled in them, handlers jump out of them, launch in them
 * or end the program; or which is sent signals while it forks, or starts CUDA while nobody answers the library. Under a limit of time a launch waits, so nearly all of it happens there;
 * handlers act only where their thread is asleep, since elsewhere it may have a lock, the driver's too, and no program can count on
 * coming through.
 *
 *     interrupted ACT SECONDS STREAMS
 *
 * STREAMS: 1, or more, each with a thread of its own. Prints what was launched, how long the longest launch took after all of it, and
 * whether this thread can still be cancelled; does not end when something hangs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"
#include "hami/cuda_abi.h"

enum { STREAMS_MOST = 8, EVERY_US = 1700 };

static struct {
    CUresult (*cuInit)(unsigned int);
    CUresult (*cuDevicePrimaryCtxRetain)(CUcontext *, CUdevice);
    CUresult (*cuDevicePrimaryCtxReset_v2)(CUdevice);
    CUresult (*cuCtxSetCurrent)(CUcontext);
    CUresult (*cuStreamCreate)(CUstream *, unsigned int);
    CUresult (*cuStreamDestroy_v2)(CUstream);
    CUresult (*cuModuleUnload)(CUmodule);
    CUresult (*cuMemAlloc_v2)(CUdeviceptr *, size_t);
    CUresult (*cuMemFree_v2)(CUdeviceptr);
    CUresult (*cuModuleLoadData)(CUmodule *, const void *);
    CUresult (*cuModuleGetFunction)(CUfunction *, CUmodule, const char *);
    CUresult (*cuLaunchKernel)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                               CUstream, void **, void **);
} cu;

static CUcontext context;
static CUmodule module;
static CUfunction spin;
static CUstream streams[STREAMS_MOST];
static int64_t kernel_ns = 300 * 1000;
static _Atomic long launched;
static _Atomic bool over;
static sigjmp_buf before;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void find(void *handle, const char *name, void *place)
{
    void *address = dlsym(handle, name);
    CHECK(address != NULL);
    memcpy(place, &address, sizeof address);
}

static void start_by(void *handle, int count)
{
    CHECK(handle != NULL);
#define FIND(name) find(handle, #name, &cu.name)
    FIND(cuInit);
    FIND(cuDevicePrimaryCtxRetain);
    FIND(cuDevicePrimaryCtxReset_v2);
    FIND(cuCtxSetCurrent);
    FIND(cuStreamCreate);
    FIND(cuStreamDestroy_v2);
    FIND(cuModuleUnload);
    FIND(cuMemAlloc_v2);
    FIND(cuMemFree_v2);
    FIND(cuModuleLoadData);
    FIND(cuModuleGetFunction);
    FIND(cuLaunchKernel);
    CHECK(cu.cuInit(0) == CUDA_SUCCESS);
    CHECK(cu.cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS && cu.cuCtxSetCurrent(context) == CUDA_SUCCESS);
    CHECK(cu.cuModuleLoadData(&module, "code") == CUDA_SUCCESS && cu.cuModuleGetFunction(&spin, module, "spin") == CUDA_SUCCESS);
    for (int i = 0; i < count; i++)
        CHECK(cu.cuStreamCreate(&streams[i], 1) == CUDA_SUCCESS);
}

static void launch(CUstream stream)
{
    void *params[] = {&kernel_ns};
    if (cu.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL) == CUDA_SUCCESS)
        atomic_fetch_add(&launched, 1);
}

static void *work(void *stream)
{
    cu.cuCtxSetCurrent(context);
    while (!atomic_load(&over)) {
        launch(*(CUstream *)stream);
        pthread_testcancel();
    }
    return NULL;
}

static void start(int count)
{
    start_by(dlopen("libcuda.so.1", RTLD_NOW), count);
}

/* ---- what happens to them ---- */

/* It was stopped in a call of the system's that waits. */
static bool asleep(const void *where)
{
    const mcontext_t *at = &((const ucontext_t *)where)->uc_mcontext;
#if defined(__x86_64__)
    return memcmp((const char *)at->gregs[REG_RIP] - 2, "\x0f\x05", 2) == 0 && at->gregs[REG_RAX] == -EINTR;
#else
    return *(const uint32_t *)(at->pc - 4) == 0xd4000001u && (int64_t)at->regs[0] == -EINTR;
#endif
}

static void jump(int number, siginfo_t *from, void *where)
{
    (void)number, (void)from;
    if (asleep(where))
        siglongjmp(before, 1);
}

static void again(int number, siginfo_t *from, void *where)
{
    (void)number, (void)from;
    if (asleep(where))
        launch(streams[0]);
}

static void leave(void)
{
    cu.cuDevicePrimaryCtxReset_v2(0);
    printf("left\n");
    fflush(stdout);
}

static void end(int number, siginfo_t *from, void *where)
{
    (void)number, (void)from;
    if (asleep(where))
        exit(0);
}

static void every(int us, void (*handler)(int, siginfo_t *, void *))
{
    const struct itimerval timer = {.it_value.tv_usec = us, .it_interval.tv_usec = us};
    const struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Out of a start that waits for the agent; then anew. */
static int start_again(int count)
{
    CUresult (*init)(unsigned int);
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(handle != NULL);
    find(handle, "cuInit", &init);
    every(EVERY_US, jump);
    if (sigsetjmp(before, 1) == 0) {
        init(0);
        CHECK(!"it was jumped out of");
    }
    signal(SIGALRM, SIG_IGN);
    start_by(handle, count);
    launch(streams[0]);
    printf("{\"launched\": %ld}\n", atomic_load(&launched));
    return 0;
}

static void cancel_again_and_again(int64_t until)
{
    for (unsigned int seed = 1; now_ns() < until; seed = seed * 1103515245 + 12345) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, work, &streams[0]) == 0);
        usleep(500 + (seed >> 16) % 4000);
        pthread_cancel(thread);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

/* ---- what they wait with goes: no program may do so, and whatever the driver says to it, nobody else is hurt ---- */

static void end_one(unsigned int what)
{
    CUstream *stream = &streams[1 + what / 4 % (STREAMS_MOST - 1)];
    if (what % 4 == 0) {
        cu.cuDevicePrimaryCtxReset_v2(0);
        CHECK(cu.cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS && cu.cuCtxSetCurrent(context) == CUDA_SUCCESS);
    } else if (what % 4 == 1) {
        cu.cuModuleUnload(module);
        CHECK(cu.cuModuleLoadData(&module, "code") == CUDA_SUCCESS && cu.cuModuleGetFunction(&spin, module, "spin") == CUDA_SUCCESS);
    } else if (*stream != NULL) {
        cu.cuStreamDestroy_v2(*stream);
        if (cu.cuStreamCreate(stream, 1) != CUDA_SUCCESS)
            *stream = NULL; /* contexts that were reset have kept theirs, on the simulated driver */
    }
}

static void end_what_they_use(int64_t until)
{
    for (unsigned int seed = 1; now_ns() < until; seed = seed * 1103515245 + 12345) {
        end_one(seed >> 16);
        usleep((seed >> 20) % 3000);
    }
}

/* ---- threads that launch while they end, as often as the C library lets them ---- */

static pthread_key_t last_word;

static void say_it(void *stream)
{
    launch(stream);
    pthread_setspecific(last_word, stream);
}

static void *only_end(void *stream)
{
    cu.cuCtxSetCurrent(context);
    pthread_setspecific(last_word, stream);
    return NULL;
}

static void end_again_and_again(int64_t until)
{
    kernel_ns = 20 * 1000;
    while (atomic_load(&launched) < 100)
        launch(streams[0]); /* the library's own key is older, so its turn to end is before ours */
    CHECK(pthread_key_create(&last_word, say_it) == 0);
    while (now_ns() < until) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, only_end, streams[0]) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

static void launch_until(int64_t until)
{
    sigsetjmp(before, 1);
    while (now_ns() < until)
        launch(streams[0]);
}

/* ---- forks, and signals at any moment of them ---- */

static pid_t parent;

static void *take_and_give(void *unused)
{
    CUdeviceptr address;
    cu.cuCtxSetCurrent(context);
    while (!atomic_load(&over)) {
        if (cu.cuMemAlloc_v2(&address, 4096) == CUDA_SUCCESS)
            cu.cuMemFree_v2(address);
        launch(streams[0]);
    }
    return unused;
}

static void *signal_all(void *unused)
{
    while (!atomic_load(&over))
        kill(0, SIGUSR1);
    return unused;
}

static void free_in_child(int number)
{
    (void)number;
    if (getpid() != parent)
        cu.cuMemFree_v2(0);
}

/* What a child may try that does not know that it is one; the driver refuses all of it. */
static void do_all_in_child(void)
{
    CUdeviceptr address;
    cu.cuInit(0);
    cu.cuMemAlloc_v2(&address, 4096);
    cu.cuDevicePrimaryCtxReset_v2(0);
    _exit(0);
}

/* True: it has not ended in 5 s. */
static bool stuck(pid_t child)
{
    const int64_t until = now_ns() + (int64_t)5 * 1000 * 1000 * 1000;
    while (waitpid(child, NULL, WNOHANG) == 0) {
        if (now_ns() > until) {
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
            return true;
        }
        usleep(200);
    }
    return false;
}

static int fork_again_and_again(int64_t until)
{
    enum { TAKERS = 3 };
    pthread_t threads[TAKERS + 1];
    int stuck_ones = 0, forks = 0;
    sigset_t mask, before_it;
    CHECK(setpgid(0, 0) == 0);
    parent = getpid();
    signal(SIGUSR1, free_in_child);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, &before_it);
    for (int i = 0; i <= TAKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < TAKERS ? take_and_give : signal_all, NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &before_it, NULL);
    for (; now_ns() < until && stuck_ones == 0; forks++) {
        const pid_t child = fork();
        if (child == 0)
            do_all_in_child();
        stuck_ones += child > 0 && stuck(child);
    }
    atomic_store(&over, true);
    for (int i = 0; i <= TAKERS; i++)
        pthread_join(threads[i], NULL);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf("{\"forks\": %d, \"stuck\": %d, \"masked\": %d}\n", forks, stuck_ones, sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGINT));
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    const int count = atoi(argv[3]);
    pthread_t others[STREAMS_MOST];
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    if (strcmp(argv[1], "start") == 0)
        return start_again(count);
    start(count);
    if (strcmp(argv[1], "fork") == 0)
        return fork_again_and_again(now_ns() + (int64_t)(atof(argv[2]) * 1e9));
    pthread_sigmask(SIG_BLOCK, &alarms, NULL); /* the others' */
    for (int i = 1; i < count; i++)
        CHECK(pthread_create(&others[i], NULL, work, &streams[i]) == 0);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    const int64_t begun = now_ns(), until = begun + (int64_t)(atof(argv[2]) * 1e9);
    if (strcmp(argv[1], "cancel") == 0) {
        cancel_again_and_again(until);
    } else if (strcmp(argv[1], "ends") == 0) {
        end_again_and_again(until);
    } else if (strcmp(argv[1], "gone") == 0) {
        end_what_they_use(until);
    } else if (strcmp(argv[1], "end") == 0) {
        atexit(leave);
        every((int)((until - begun) / 1000 % 1000000), end);
        launch_until(INT64_MAX);
    } else {
        every(EVERY_US, strcmp(argv[1], "jump") == 0 ? jump : again);
        launch_until(until);
    }
    signal(SIGALRM, SIG_IGN);
    const double rate = (double)atomic_load(&launched) / ((double)(now_ns() - begun) / 1e9);
    int64_t longest = 0;
    for (int i = 0; i < 20; i++) {
        const int64_t from = now_ns();
        launch(streams[0]);
        longest = now_ns() - from > longest ? now_ns() - from : longest;
    }
    atomic_store(&over, true);
    for (int i = 1; i < count; i++)
        pthread_join(others[i], NULL);
    CHECK(cu.cuDevicePrimaryCtxReset_v2(0) == CUDA_SUCCESS);
    int state;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    printf("{\"percent\": %.1f, \"longest_ms\": %.1f, \"cancelable\": %d}\n", rate * (double)kernel_ns / 1e7, (double)longest / 1e6,
           state == PTHREAD_CANCEL_ENABLE);
    return 0;
}
