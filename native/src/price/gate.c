/* See gate.h. */
#include "price/gate.h"

#include <stdatomic.h>

#include "price/bench.h"
#include "price/bulk.h"
#include "prim/prim.h"
#include "process/state.h"

/* The gate that is closed now, for the watch thread: written before it closes and after it opens. */
static _Atomic(uint32_t *) closed_word;
static _Atomic uint32_t closed_ticket;
static _Atomic int64_t closed_until_ns; /* then it is opened by force */
static _Atomic uint32_t forced_ticket;

bool hami_gate_watch(void)
{
    uint32_t *word = atomic_load(&closed_word);
    if (word == NULL)
        return false;
    const uint32_t ticket = atomic_load(&closed_ticket);
    if (ticket == atomic_load(&forced_ticket))
        return false; /* opened already: its owner may not come back, and the word may go with its context */
    if (hami_now_ns() > atomic_load(&closed_until_ns) && atomic_load(&closed_word) == word) {
        atomic_store(&forced_ticket, ticket);
        /* An older ticket only repeats what its owner wrote; the word never needs to go back, and never does: */
        uint32_t there = __atomic_load_n(word, __ATOMIC_RELAXED);
        while ((int32_t)(ticket - there) > 0 &&
               !__atomic_compare_exchange_n(word, &there, ticket, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
        }
        hami_bulk_forced();
    }
    return true;
}

void hami_gate_close(uint32_t *word, uint32_t ticket, int64_t patience_ns)
{
    atomic_store(&closed_ticket, ticket);
    atomic_store(&closed_until_ns, hami_now_ns() + patience_ns);
    atomic_store(&closed_word, word);
    hami_watch_gate();
}

bool hami_gate_open(uint32_t *word, uint32_t ticket)
{
    hami_bench_open(word, ticket);
    atomic_store(&closed_word, NULL);
    return atomic_load(&forced_ticket) != ticket;
}
