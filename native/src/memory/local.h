/* Local memory of kernels, which a card takes for all its threads when the first that needs so much is launched. */
#ifndef HAMI_MEMORY_LOCAL_H
#define HAMI_MEMORY_LOCAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "pay/hot.h"
#include "process/state.h"

enum { HAMI_LOCAL_BUCKETS = 1024 };

/* Functions that wait (hami_hot.waiting), by their addresses: a launch of another is told from them without a lock. */
extern _Atomic uint16_t hami_local_buckets[HAMI_LOCAL_BUCKETS];

static inline unsigned int hami_local_bucket(const void *function)
{
    return (unsigned int)((uint64_t)(uintptr_t)function * 0x9e3779b97f4a7c15u >> 54);
}

/* True: it may need more local memory than contexts have, and was not launched yet. */
static inline bool hami_local_waits(const void *function)
{
    return atomic_load_explicit(&hami_hot.waiting, memory_order_relaxed) != 0 &&
           atomic_load_explicit(&hami_local_buckets[hami_local_bucket(function)], memory_order_relaxed) != 0;
}

/* The local memory of a function, or of the kernel of a library, is in the ledger, if need be from now on. False: over the limit. */
bool hami_local_take(const void *function);

static inline bool hami_local_fits(const void *function)
{
    return !hami_local_waits(function) || hami_local_take(function);
}

/* More of it for all threads of the current context's card. False: over the limit. */
bool hami_local_reserve(hami_card *card, size_t bytes_a_thread);

/* A context has been made: kernels of libraries may be launched in it, too. */
void hami_local_made(CUcontext context, hami_card *card);

/* The card of a context, be it current or not; NULL: not known. */
hami_card *hami_local_card_of(CUcontext context);

/* A context has gone, and its local memory with it. */
void hami_local_gone(CUcontext context);

/* A module or library has been unloaded: its functions' addresses may be others' from now on. */
void hami_local_unloaded(const void *owner);

#endif
