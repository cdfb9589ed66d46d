/*
 * Which MIG instances exist. They belong to the card, not to the process that
 * made them: all programs see them, and they outlive each. So they live in a
 * file beside the description, <description>.mig, under a file lock.
 */
#ifndef HAMI_SIM_MIG_STATE_H
#define HAMI_SIM_MIG_STATE_H

#include "rack.h"

#define MAX_INSTANCES (MAX_CARDS * 8U)

struct mig_mode {
    char card[NVML_UUID_SIZE];
    bool current;
    bool pending;
};

struct mig_gi {
    char card[NVML_UUID_SIZE];
    unsigned int id;
    unsigned int profile; /* the profile's id, not its index */
    nvmlGpuInstancePlacement_t placement;
};

struct mig_ci {
    char card[NVML_UUID_SIZE];
    unsigned int gi;
    unsigned int id;
    unsigned int profile;
    nvmlComputeInstancePlacement_t placement;
};

struct mig_state {
    struct mig_mode modes[MAX_CARDS];
    unsigned int mode_count;
    struct mig_gi gis[MAX_INSTANCES]; /* sorted by card, then id */
    unsigned int gi_count;
    struct mig_ci cis[MAX_INSTANCES]; /* sorted by card, gi, id */
    unsigned int ci_count;
};

/*
 * Opens the state: NULL where the file cannot be had. It is locked against all
 * other programs until mig_close(), which writes it back if `changed`. Needs the
 * rack's lock, so there is one at a time in a process.
 */
struct mig_state *mig_open(void);
bool mig_close(bool changed);

#endif
