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

/* What a limit that a program sets takes (cuCtxSetLimit). */
typedef struct {
    int limit;
    size_t value, before;
    int64_t bytes; /* 0: nothing */
} hami_local_taken;

/* Reserves it, of the current context. False: over the limit of memory. */
bool hami_local_limit(hami_card *card, int limit, size_t value, hami_local_taken *taken);

/* The driver has refused to set it. */
void hami_local_refused(hami_card *card, const hami_local_taken *taken);

/* A context has been made: kernels of libraries may be launched in it, too. */
void hami_local_made(CUcontext context, hami_card *card);

/* The card of a context, be it current or not; NULL: not known. */
hami_card *hami_local_card_of(CUcontext context);

/* A context has gone, and its local memory with it. */
void hami_local_gone(CUcontext context);

/* A context is called otherwise from now on. */
void hami_local_rename(CUcontext from, CUcontext to);

/*
 * A module or library is about to be unloaded, and then, where it has `gone`, its functions' addresses may be others'. Its own handle too, at
 * once: so what was given out of it has the ticket for a name meanwhile.
 */
uint64_t hami_local_unloading(const void *owner);
void hami_local_unloaded(const void *owner, uint64_t ticket, bool gone);

#endif
