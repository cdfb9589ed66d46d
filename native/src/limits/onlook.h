/*
 * What a program sees of its slice that asks NVML and never starts CUDA, as nvidia-smi does.
 *
 * It has no slot, no session with the broker, and holds nothing: policy and ledger are read; only the dead are taken out.
 */
#ifndef HAMI_ONLOOK_H
#define HAMI_ONLOOK_H

#include <stdbool.h>
#include <stdint.h>

/* The slice's size and what all processes hold of it, bytes. False: the card is not limited here. */
bool hami_onlook(const char *uuid, int64_t *limit, int64_t *used);

/* Whether lists of processes are to be cut to this container's. */
bool hami_onlook_hides(void);

/* Whether a process that NVML shows is of this container. */
bool hami_onlook_has(int pid);

#endif
