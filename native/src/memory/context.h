/* What contexts take of a card: reserved before they are made, or measured where nobody knows it yet. */
#ifndef HAMI_MEMORY_CONTEXT_H
#define HAMI_MEMORY_CONTEXT_H

#include "process/state.h"

typedef struct {
    hami_card *card;                /* NULL: nothing is charged */
    int64_t estimate, before, took; /* bytes */
    bool claimed;                   /* nobody else makes one of unknown size */
    CUcontext made;                 /* NULL: not yet, or its handle is not known */
} hami_making;

/* A context is to be made. Success, or why there is to be none. */
CUresult hami_making_begin(hami_making *m, CUdevice device);

/* It was made, or refused. True: it fits; otherwise the caller undoes it, and says so. */
bool hami_making_end(hami_making *m, CUresult result);
CUresult hami_making_undone(hami_making *m);

/* A context of that card has ended: gives back what was charged for it. The next look at NVML has the last word. */
void hami_making_back(hami_card *card);

/* Something has changed that only NVML shows, on whatever card. */
void hami_all_due(void);

#endif
