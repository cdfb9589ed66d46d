/* The lock of the ledger where the kernel has woken nobody, though it is free. See units.h. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "memory/ledger.h"
#include "prim/prim.h"
#include "units.h"

enum { OWNER_DIED = 0x40000000, SLEEPS_US = 50 * 1000 };

static hami_ledger *ledger;

static void *wait_for_it(void *unused)
{
    CHECK(hami_ledger_held(ledger, 0) == 0);
    return unused;
}

/*
 * It knows of waiters by a bit in the lock, which whoever takes it anew does not set. So where such a one is killed together with a waiter that was just
 * woken, and would have set it again, the lock is left as free, of a dead owner, and all others sleep on.
 */
void wakes(const char *path)
{
    pthread_t waiting;
    int slot = -1;
    CHECK(hami_ledger_open(path, &ledger, &slot) == 0);
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)&ledger->lock; /* who has it */
    const uint32_t somebody = (uint32_t)getpid();
    alarm(20);
    atomic_store(word, somebody);
    CHECK(pthread_create(&waiting, NULL, wait_for_it, NULL) == 0);
    while (atomic_load(word) == somebody) /* until the other says that it waits */
        usleep(1000);
    usleep(SLEEPS_US);
    const int64_t from = hami_now_ns();
    atomic_store(word, OWNER_DIED);
    pthread_join(waiting, NULL);
    CHECK(hami_now_ns() - from < 1000000000);
}
