/*
 * A process that stands still with the ledger's lock, half way through a change: all others of its container wait for it, as
 * long as that takes, and for nothing else. When it is killed the first of them goes on at once. See units.h.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/ledger.h"
#include "prim/prim.h"
#include "units.h"

#define LIMIT ((int64_t)4 << 30)
#define MIB ((int64_t)1 << 20)
enum { ROUNDS = 20, STILL_NS = 30 * 1000 * 1000, AT_ONCE_NS = 1000 * 1000 * 1000 };

static hami_ledger *ledger;
static int slot;
static _Atomic int64_t went_on_ns;

/* The slot has it and the total has it not: what a kill between two lines leaves. */
static void stand_still(const char *path)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(hami_ledger_open(path, &ledger, &slot) == 0);
    hami_ledger_lock(ledger);
    ledger->slots[slot].cards[0].held[HAMI_BUFFER] += 7 * MIB;
    raise(SIGSTOP);
    _exit(1); /* nobody lets it go on */
}

static void *neighbour(void *unused)
{
    CHECK(hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, MIB, LIMIT));
    atomic_store(&went_on_ns, hami_now_ns());
    return unused;
}

void halted(const char *path)
{
    int64_t slowest = 0;
    CHECK(hami_ledger_open(path, &ledger, &slot) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        int status = 0;
        pthread_t waits;
        const pid_t holder = fork();
        if (holder == 0)
            stand_still(path);
        CHECK(waitpid(holder, &status, WUNTRACED) == holder && WIFSTOPPED(status));
        atomic_store(&went_on_ns, 0);
        CHECK(pthread_create(&waits, NULL, neighbour, NULL) == 0);
        hami_sleep_coarse_ns(STILL_NS);
        CHECK(atomic_load(&went_on_ns) == 0);
        const int64_t killed = hami_now_ns();
        CHECK(kill(holder, SIGKILL) == 0 && waitpid(holder, &status, 0) == holder && WIFSIGNALED(status));
        CHECK(pthread_join(waits, NULL) == 0);
        const int64_t took = atomic_load(&went_on_ns) - killed;
        slowest = took > slowest ? took : slowest;
        hami_ledger_reap(ledger);
        CHECK(hami_ledger_held(ledger, 0) == (i + 1) * MIB);
    }
    printf("%d halts, longest wait after the kill %.1f ms\n", ROUNDS, (double)slowest / 1e6);
    CHECK(slowest < AT_ONCE_NS);
}
