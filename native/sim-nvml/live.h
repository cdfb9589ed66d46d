/* See live.c. */
#ifndef HAMI_SIM_NVML_LIVE_H
#define HAMI_SIM_NVML_LIVE_H

#include <stdint.h>

struct live_process {
    unsigned int pid;  /* here; 0: it has none in this pid namespace, and is not to be shown */
    unsigned int slot; /* of the shared file */
    uint64_t bytes;
    int64_t ran_ns; /* since it began, what it has begun and not ended counted as far as it is */
};

/* Those that hold memory of the card, at most `size`; returns how many. */
unsigned int live_processes(unsigned int card, struct live_process *out, unsigned int size);

uint64_t live_bytes(unsigned int card);

/* load.c: how busy they all keep it. Under the rack's lock. */
unsigned int live_percent(unsigned int card);

#endif
