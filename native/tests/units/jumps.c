/*
 * A thread that has the ledger's lock and does not come back to leave it, since a handler has jumped out of there, or that is called again by a handler which
 * has interrupted it there: it goes on, and so do all others of the container. See units.h.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

#include "memory/ledger.h"
#include "units.h"

#define LIMIT ((int64_t)4 << 30)
#define MIB ((int64_t)1 << 20)

static hami_ledger *ledger;
static int slot;
static sigjmp_buf out;

static void jump(int number)
{
    (void)number;
    siglongjmp(out, 1);
}

static void take_and_give(int number)
{
    (void)number;
    CHECK(hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, MIB, LIMIT));
    hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, MIB);
}

static void *other(void *unused)
{
    take_and_give(0);
    return unused;
}

/* The slot has it and the total has it not. */
static void half_a_change(void)
{
    hami_ledger_lock(ledger);
    ledger->slots[slot].cards[0].held[HAMI_BUFFER] += 7 * MIB;
    raise(SIGUSR1);
    ledger->cards[0].held = 7 * MIB;
    hami_ledger_unlock(ledger);
}

static void all_goes_on(void)
{
    pthread_t thread;
    take_and_give(0);
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(hami_ledger_held(ledger, 0) == 7 * MIB);
    hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, 7 * MIB);
}

void jumps(const char *path)
{
    CHECK(hami_ledger_open(path, &ledger, &slot) == 0 && hami_ledger_card_index(ledger, "GPU-jumps", LIMIT, 50) == 0);
    signal(SIGUSR1, jump);
    if (sigsetjmp(out, 1) == 0)
        half_a_change();
    all_goes_on();
    signal(SIGUSR1, take_and_give);
    half_a_change();
    all_goes_on();
    printf("all went on\n");
}
