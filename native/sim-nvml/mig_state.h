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

/* Begins a call about a card's instances: rack and state are locked if it succeeds. End with finish(). */
nvmlReturn_t enter_mig(const char *function, nvmlDevice_t device, bool needs_on, struct card **card,
                       struct mig_state **state);
/* The same for a call on a GPU instance. A handle whose instance is gone is a wrong argument. */
nvmlReturn_t enter_gi(const char *function, nvmlGpuInstance_t instance, struct card **card, struct mig_state **state,
                      struct mig_gi **gi);
/* Writes the state if `changed` and the call succeeded, and unlocks both. */
nvmlReturn_t finish(nvmlReturn_t result, bool changed);

const struct profile *profile_by_id(const struct card *card, unsigned int id);
struct mig_gi *gi_of(struct mig_state *state, const char *card, unsigned int id);
/* Like device handles these stay valid as pointers, whatever happens to the instance. NULL: too many. */
struct gpu_instance *gi_handle(const char *card, unsigned int id);

#endif
