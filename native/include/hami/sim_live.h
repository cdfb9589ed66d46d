/*
 * What the simulated CUDA driver and the simulated NVML share: which process holds how much of which card now.
 *
 * One file beside the card description, `<description>.live`, mapped by both. A process writes only its own entry.
 */
#ifndef HAMI_SIM_LIVE_H
#define HAMI_SIM_LIVE_H

#include <stdatomic.h>
#include <stdint.h>

enum { SIM_LIVE_PROCESSES = 512, SIM_LIVE_CARDS = 16, SIM_LIVE_MAGIC = 0x53494d32 };

typedef struct {
    _Atomic int32_t pid; /* 0: free */
    int32_t pad;
    _Atomic int64_t bytes[SIM_LIVE_CARDS];   /* held on each card of the description */
    _Atomic int64_t busy_ns[SIM_LIVE_CARDS]; /* time it was given on each card, put down as it begins */
    _Atomic int64_t turn_ns[SIM_LIVE_CARDS]; /* end of its last turn on each card, CLOCK_MONOTONIC */
} sim_live_process;

typedef struct {
    _Atomic uint32_t magic;
    uint32_t pad;
    _Atomic int64_t free_at_ns[SIM_LIVE_CARDS]; /* when each card is through with what was handed to it, CLOCK_MONOTONIC */
    sim_live_process processes[SIM_LIVE_PROCESSES];
} sim_live;

#endif
