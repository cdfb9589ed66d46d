/* See live.c. */
#ifndef HAMI_SIM_NVML_LIVE_H
#define HAMI_SIM_NVML_LIVE_H

#include <stdint.h>

struct live_process {
    unsigned int pid;
    uint64_t bytes;
};

/* Those that hold memory of the card, at most `size`; returns how many. */
unsigned int live_processes(unsigned int card, struct live_process *out, unsigned int size);

uint64_t live_bytes(unsigned int card);

#endif
