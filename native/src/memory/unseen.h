/*
 * What was taken where there is no NVML, as in a container that has only the driver: by the driver's own count of the whole card, in which
 * others' memory is, too. More may so be charged than was taken, and less where memory comes back meanwhile of which the ledger does not know yet:
 * others', a pool's, what is freed in a stream's order.
 */
#ifndef HAMI_MEMORY_UNSEEN_H
#define HAMI_MEMORY_UNSEEN_H

#include "process/state.h"

/* A moment before something of unknown size is taken in the current context. */
typedef struct {
    int64_t free; /* bytes of the card; below 0: nothing is to be measured, or cannot be */
    int64_t held; /* bytes, by the ledger, of this container */
} hami_unseen;

/* There is no NVML, or it does not know the card. */
bool hami_unseen_here(hami_card *card);

hami_unseen hami_unseen_before(hami_card *card);

/* Bytes that were taken since. */
int64_t hami_unseen_took(hami_card *card, const hami_unseen *before);

/* Bytes that a context takes at most, of which the first of its process has been made; NULL: its handle is not known. */
int64_t hami_unseen_context(hami_card *card, CUcontext made);

#endif
