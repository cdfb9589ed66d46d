/* Local memory of kernels, which a card takes for all its threads when the first that needs so much is launched. */
#ifndef HAMI_MEMORY_LOCAL_H
#define HAMI_MEMORY_LOCAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "process/state.h"

extern _Atomic int hami_local_waiting; /* functions that need more than contexts have, and were not launched yet */

/* The local memory of a function, or of the kernel of a library, is in the ledger, if need be from now on. False: over the limit. */
bool hami_local_take(const void *function);

static inline bool hami_local_fits(const void *function)
{
    return atomic_load_explicit(&hami_local_waiting, memory_order_relaxed) == 0 || hami_local_take(function);
}

/* More of it for all threads of the current context's card. False: over the limit. */
bool hami_local_reserve(hami_card *card, size_t bytes_a_thread);

/* A context has gone, and its local memory with it. */
void hami_local_gone(CUcontext context);

#endif
