/* MIG: modes, profiles, GPU instances, compute instances, and the devices they make. */
#define _GNU_SOURCE
#include <string.h>

#include "mig_state.h"

#define MAX_MIG_DEVICES 7U

/* Handles for instances; like device handles they stay valid as pointers, whatever happens to the instance. */
struct gpu_instance {
    char card[NVML_UUID_SIZE];
    unsigned int id;
    bool used;
};

struct compute_instance {
    char card[NVML_UUID_SIZE];
    unsigned int gi, id;
    bool used;
};

static struct gpu_instance gi_handles[MAX_INSTANCES];
static struct compute_instance ci_handles[MAX_INSTANCES];

static struct gpu_instance *gi_handle(const char *card, unsigned int id)
{
    for (unsigned int i = 0; i < MAX_INSTANCES; i++) {
        struct gpu_instance *handle = &gi_handles[i];
        if (!handle->used) {
            (void)snprintf(handle->card, sizeof handle->card, "%s", card);
            handle->id = id;
            handle->used = true;
        }
        if (handle->id == id && strcmp(handle->card, card) == 0)
            return handle;
    }
    return NULL;
}

static struct compute_instance *ci_handle(const char *card, unsigned int gi, unsigned int id)
{
    for (unsigned int i = 0; i < MAX_INSTANCES; i++) {
        struct compute_instance *handle = &ci_handles[i];
        if (!handle->used) {
            (void)snprintf(handle->card, sizeof handle->card, "%s", card);
            handle->gi = gi;
            handle->id = id;
            handle->used = true;
        }
        if (handle->gi == gi && handle->id == id && strcmp(handle->card, card) == 0)
            return handle;
    }
    return NULL;
}

/* -- mode -------------------------------------------------------------------- */

static struct mig_mode *mode_of(struct mig_state *state, const struct card *card)
{
    for (unsigned int i = 0; i < state->mode_count; i++)
        if (strcmp(state->modes[i].card, card->uuid) == 0)
            return &state->modes[i];
    if (state->mode_count == MAX_CARDS)
        return NULL;
    struct mig_mode *mode = &state->modes[state->mode_count++];
    memcpy(mode->card, card->uuid, sizeof mode->card);
    mode->current = card->mig_current == SWITCH_ON;
    mode->pending = card->mig_pending == SWITCH_ON;
    return mode;
}

bool mig_is_on(const struct card *card)
{
    if (card->mig_current == SWITCH_NONE)
        return false;
    struct mig_state *state = mig_open();
    if (state == NULL)
        return card->mig_current == SWITCH_ON;
    const struct mig_mode *mode = mode_of(state, card);
    bool on = mode != NULL && mode->current;
    (void)mig_close(false);
    return on;
}

/* Begins a call about a card's instances: the card is locked in, and so is the state. End with finish(). */
static nvmlReturn_t enter_mig(const char *function, nvmlDevice_t device, bool needs_on, struct card **card,
                              struct mig_state **state)
{
    nvmlReturn_t result = enter_card(function, device, card);
    if (result != NVML_SUCCESS)
        return result;
    if ((*card)->mig_current == SWITCH_NONE)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *state = mig_open();
    if (*state == NULL)
        return leave(NVML_ERROR_OPERATING_SYSTEM);
    const struct mig_mode *mode = mode_of(*state, *card);
    if (mode == NULL || (needs_on && !mode->current)) {
        (void)mig_close(false);
        return leave(NVML_ERROR_NOT_SUPPORTED);
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t finish(nvmlReturn_t result, bool changed)
{
    if (!mig_close(changed && result == NVML_SUCCESS))
        result = NVML_ERROR_OPERATING_SYSTEM;
    return leave(result);
}

NVML_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(__func__, device, false, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    const struct mig_mode *mode = mode_of(state, card);
    if (current == NULL || pending == NULL || mode == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    *current = mode->current;
    *pending = mode->pending;
    return finish(NVML_SUCCESS, false);
}

static bool has_instances(const struct mig_state *state, const struct card *card)
{
    for (unsigned int i = 0; i < state->gi_count; i++)
        if (strcmp(state->gis[i].card, card->uuid) == 0)
            return true;
    return false;
}

/* A card in use takes the new mode at its next reset, which the simulation's test makes by its file. */
NVML_API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned int wanted, nvmlReturn_t *activation)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(__func__, device, false, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    struct mig_mode *mode = mode_of(state, card);
    if (wanted > 1 || activation == NULL || mode == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    if (wanted == 0 && has_instances(state, card))
        return finish(NVML_ERROR_IN_USE, false);
    mode->pending = wanted == 1;
    *activation = mode->current != mode->pending && card->process_count > 0 ? NVML_ERROR_IN_USE : NVML_SUCCESS;
    if (*activation == NVML_SUCCESS)
        mode->current = mode->pending;
    return finish(NVML_SUCCESS, true);
}

/* -- profiles of GPU instances ------------------------------------------------ */

static const struct profile *profile_by_index(const struct card *card, unsigned int index)
{
    for (unsigned int i = 0; i < card->profile_count; i++)
        if (card->profiles[i].index == index)
            return &card->profiles[i];
    return NULL;
}

static const struct profile *profile_by_id(const struct card *card, unsigned int id)
{
    for (unsigned int i = 0; i < card->profile_count; i++)
        if (card->profiles[i].info.id == id)
            return &card->profiles[i];
    return NULL;
}

enum { GI_PROFILE_COUNT = 18 };

static nvmlReturn_t enter_profile(const char *function, nvmlDevice_t device, unsigned int index, const void *to,
                                  const struct profile **profile)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(function, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (to == NULL || index >= GI_PROFILE_COUNT)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *profile = card->mig_current == SWITCH_NONE ? NULL : profile_by_index(card, index);
    return *profile ? NVML_SUCCESS : leave(NVML_ERROR_NOT_SUPPORTED);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index,
                                                          nvmlGpuInstanceProfileInfo_t *info)
{
    const struct profile *profile = NULL;
    nvmlReturn_t result = enter_profile(__func__, device, index, info, &profile);
    if (result != NVML_SUCCESS)
        return result;
    *info = profile->info;
    return leave(NVML_SUCCESS);
}

/* Version 2 adds the name. Version 3 puts flags where P2P was; nobody here asks for it yet. */
NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index,
                                                           nvmlGpuInstanceProfileInfo_v2_t *info)
{
    const unsigned int version = (unsigned int)sizeof(nvmlGpuInstanceProfileInfo_v2_t) | 2U << 24;
    const struct profile *profile = NULL;
    nvmlReturn_t result = enter_profile(__func__, device, index, info, &profile);
    if (result != NVML_SUCCESS)
        return result;
    if (info->version != version)
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    *info = (nvmlGpuInstanceProfileInfo_v2_t){
        .version = version,
        .id = profile->info.id,
        .isP2pSupported = profile->info.isP2pSupported,
        .sliceCount = profile->info.sliceCount,
        .instanceCount = profile->info.instanceCount,
        .multiprocessorCount = profile->info.multiprocessorCount,
        .copyEngineCount = profile->info.copyEngineCount,
        .decoderCount = profile->info.decoderCount,
        .encoderCount = profile->info.encoderCount,
        .jpegCount = profile->info.jpegCount,
        .ofaCount = profile->info.ofaCount,
        .memorySizeMB = profile->info.memorySizeMB,
    };
    (void)snprintf(info->name, sizeof info->name, "MIG %s", profile->name);
    return leave(NVML_SUCCESS);
}

static nvmlReturn_t placements(const char *function, nvmlDevice_t device, unsigned int id,
                               nvmlGpuInstancePlacement_t *to, unsigned int *count)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(function, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    const struct profile *profile = card->mig_current == SWITCH_NONE ? NULL : profile_by_id(card, id);
    if (profile == NULL)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    if (to != NULL && *count < profile->placement_count)
        return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    if (to != NULL)
        memcpy(to, profile->placements, profile->placement_count * sizeof *to);
    *count = profile->placement_count;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id,
                                                                    nvmlGpuInstancePlacement_t *to,
                                                                    unsigned int *count)
{
    return placements(__func__, device, id, to, count);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t device, unsigned int id,
                                                                 nvmlGpuInstancePlacement_t *to, unsigned int *count)
{
    return placements(__func__, device, id, to, count);
}

/* -- GPU instances ------------------------------------------------------------ */

static bool is_free(const struct mig_state *state, const struct card *card, const nvmlGpuInstancePlacement_t *wanted)
{
    for (unsigned int i = 0; i < state->gi_count; i++) {
        const nvmlGpuInstancePlacement_t *taken = &state->gis[i].placement;
        if (strcmp(state->gis[i].card, card->uuid) == 0 && wanted->start < taken->start + taken->size &&
            taken->start < wanted->start + wanted->size)
            return false;
    }
    return true;
}

static bool is_legal(const struct profile *profile, const nvmlGpuInstancePlacement_t *wanted)
{
    for (unsigned int i = 0; i < profile->placement_count; i++)
        if (profile->placements[i].start == wanted->start && profile->placements[i].size == wanted->size)
            return true;
    return false;
}

/* Compute slices are scarcer than memory slices: 7 against 8. */
static unsigned int free_slices(const struct mig_state *state, const struct card *card)
{
    unsigned int slices = 0;
    for (unsigned int i = 0; i < card->profile_count; i++)
        if (card->profiles[i].info.sliceCount > slices)
            slices = card->profiles[i].info.sliceCount;
    for (unsigned int i = 0; i < state->gi_count; i++) {
        const struct profile *profile = profile_by_id(card, state->gis[i].profile);
        if (strcmp(state->gis[i].card, card->uuid) == 0 && profile != NULL)
            slices -= profile->info.sliceCount < slices ? profile->info.sliceCount : slices;
    }
    return slices;
}

static unsigned int capacity(const struct mig_state *state, const struct card *card, const struct profile *profile)
{
    unsigned int spots = 0;
    unsigned int end = 0;
    for (unsigned int i = 0; i < profile->placement_count; i++) {
        const nvmlGpuInstancePlacement_t *spot = &profile->placements[i];
        if (spot->start >= end && is_free(state, card, spot)) {
            spots++;
            end = spot->start + spot->size;
        }
    }
    unsigned int by_slices = free_slices(state, card) / profile->info.sliceCount;
    unsigned int most = profile->info.instanceCount;
    spots = spots < by_slices ? spots : by_slices;
    return spots < most ? spots : most;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id,
                                                                unsigned int *count)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(__func__, device, true, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    const struct profile *profile = profile_by_id(card, id);
    if (count == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    if (profile == NULL)
        return finish(NVML_ERROR_NOT_SUPPORTED, false);
    *count = capacity(state, card, profile);
    return finish(NVML_SUCCESS, false);
}

/* Ids follow the tree of placements, as seen on real cards: 0 is the whole, 1-2 the halves, 3-6, 7-14. */
static unsigned int gi_id(const nvmlGpuInstancePlacement_t *placement)
{
    unsigned int blocks = placement->size >= 8 ? 1 : 8 / placement->size;
    return blocks - 1 + placement->start / placement->size;
}

static nvmlReturn_t create_gi(struct mig_state *state, const struct card *card, unsigned int id,
                              const nvmlGpuInstancePlacement_t *wanted, nvmlGpuInstance_t *instance)
{
    const struct profile *profile = profile_by_id(card, id);
    const nvmlGpuInstancePlacement_t *at = wanted;
    if (profile == NULL)
        return NVML_ERROR_NOT_SUPPORTED;
    if (wanted != NULL && !is_legal(profile, wanted))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; wanted == NULL && at == NULL && i < profile->placement_count; i++)
        if (is_free(state, card, &profile->placements[i]))
            at = &profile->placements[i];
    if (at == NULL || !is_free(state, card, at) || capacity(state, card, profile) == 0 ||
        state->gi_count == MAX_INSTANCES)
        return NVML_ERROR_INSUFFICIENT_RESOURCES;
    struct mig_gi *gi = &state->gis[state->gi_count++];
    *gi = (struct mig_gi){.id = gi_id(at), .profile = id, .placement = *at};
    memcpy(gi->card, card->uuid, sizeof gi->card);
    *instance = gi_handle(gi->card, gi->id);
    return *instance ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

static nvmlReturn_t create(const char *function, nvmlDevice_t device, unsigned int id,
                           const nvmlGpuInstancePlacement_t *wanted, nvmlGpuInstance_t *instance)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(function, device, true, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    if (instance == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    return finish(create_gi(state, card, id, wanted, instance), true);
}

NVML_API nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance)
{
    return create(__func__, device, id, NULL, instance);
}

NVML_API nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned int id,
                                                               const nvmlGpuInstancePlacement_t *placement,
                                                               nvmlGpuInstance_t *instance)
{
    return placement ? create(__func__, device, id, placement, instance) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instances,
                                                unsigned int *count)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(__func__, device, true, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    if (instances == NULL || count == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    *count = 0;
    for (unsigned int i = 0; i < state->gi_count; i++)
        if (strcmp(state->gis[i].card, card->uuid) == 0 && state->gis[i].profile == id)
            instances[(*count)++] = gi_handle(card->uuid, state->gis[i].id);
    return finish(NVML_SUCCESS, false);
}

static struct mig_gi *gi_of(struct mig_state *state, const char *card, unsigned int id)
{
    for (unsigned int i = 0; i < state->gi_count; i++)
        if (state->gis[i].id == id && strcmp(state->gis[i].card, card) == 0)
            return &state->gis[i];
    return NULL;
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    nvmlReturn_t result = enter_mig(__func__, device, true, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    if (instance == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    if (gi_of(state, card->uuid, id) == NULL)
        return finish(NVML_ERROR_NOT_FOUND, false);
    *instance = gi_handle(card->uuid, id);
    return finish(NVML_SUCCESS, false);
}

/* Begins a call on a GPU instance. A handle whose instance is gone is a wrong argument. */
static nvmlReturn_t enter_gi(const char *function, nvmlGpuInstance_t instance, struct card **card,
                             struct mig_state **state, struct mig_gi **gi)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    *card = instance ? card_by_uuid(instance->card) : NULL;
    if (*card == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *state = mig_open();
    if (*state == NULL)
        return leave(NVML_ERROR_OPERATING_SYSTEM);
    *gi = gi_of(*state, instance->card, instance->id);
    return *gi ? NVML_SUCCESS : finish(NVML_ERROR_INVALID_ARGUMENT, false);
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    if (info == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    *info = (nvmlGpuInstanceInfo_t){.id = gi->id, .profileId = gi->profile, .placement = gi->placement};
    return finish(card_handle(card, &info->device), false);
}

static bool busy(const struct card *card, unsigned int gi, unsigned int ci)
{
    for (unsigned int i = 0; i < card->process_count; i++)
        if (card->processes[i].gi == gi && card->processes[i].ci == ci)
            return true;
    return false;
}

NVML_API nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t instance)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    for (unsigned int i = 0; i < state->ci_count; i++)
        if (state->cis[i].gi == gi->id && strcmp(state->cis[i].card, gi->card) == 0)
            return finish(NVML_ERROR_IN_USE, false);
    *gi = state->gis[--state->gi_count];
    return finish(NVML_SUCCESS, true);
}

/* -- compute instances ---------------------------------------------------------- */

static const unsigned int ci_slices[] = {1, 2, 3, 4, 7, 8, 6}; /* by NVML_COMPUTE_INSTANCE_PROFILE_... */

enum { CI_PROFILES = sizeof ci_slices / sizeof ci_slices[0] };

/* A compute instance may take any of the sizes up to its GPU instance's own. */
static bool ci_profile(const struct card *card, const struct mig_gi *gi, unsigned int index,
                       nvmlComputeInstanceProfileInfo_t *info)
{
    const struct profile *profile = profile_by_id(card, gi->profile);
    if (profile == NULL || index >= CI_PROFILES || ci_slices[index] > profile->info.sliceCount)
        return false;
    unsigned int slices = ci_slices[index];
    *info = (nvmlComputeInstanceProfileInfo_t){
        .id = index,
        .sliceCount = slices,
        .instanceCount = profile->info.sliceCount / slices,
        .multiprocessorCount = profile->info.multiprocessorCount * slices / profile->info.sliceCount,
        .sharedCopyEngineCount = profile->info.copyEngineCount,
        .sharedDecoderCount = profile->info.decoderCount,
        .sharedEncoderCount = profile->info.encoderCount,
        .sharedJpegCount = profile->info.jpegCount,
        .sharedOfaCount = profile->info.ofaCount,
    };
    return true;
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t instance, unsigned int index,
                                                                   unsigned int engines,
                                                                   nvmlComputeInstanceProfileInfo_t *info)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    if (info == NULL || engines != 0)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    return finish(ci_profile(card, gi, index, info) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED, false);
}

static struct mig_ci *ci_of(struct mig_state *state, const char *card, unsigned int gi, unsigned int id)
{
    for (unsigned int i = 0; i < state->ci_count; i++)
        if (state->cis[i].gi == gi && state->cis[i].id == id && strcmp(state->cis[i].card, card) == 0)
            return &state->cis[i];
    return NULL;
}

/* The first run of free compute slices that is long enough; false if there is none. */
static bool ci_spot(const struct mig_state *state, const struct mig_gi *gi, unsigned int slices, unsigned int needed,
                    unsigned int *start)
{
    for (unsigned int at = 0; at + needed <= slices; at++) {
        bool taken = false;
        for (unsigned int i = 0; i < state->ci_count; i++) {
            const struct mig_ci *other = &state->cis[i];
            taken = taken || (other->gi == gi->id && strcmp(other->card, gi->card) == 0 &&
                              at < other->placement.start + other->placement.size &&
                              other->placement.start < at + needed);
        }
        if (!taken) {
            *start = at;
            return true;
        }
    }
    return false;
}

static unsigned int free_ci_id(struct mig_state *state, const struct mig_gi *gi)
{
    unsigned int id = 0;
    while (ci_of(state, gi->card, gi->id, id) != NULL)
        id++;
    return id;
}

NVML_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t instance, unsigned int index,
                                                           nvmlComputeInstance_t *created)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlComputeInstanceProfileInfo_t info;
    unsigned int start = 0;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    if (created == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    if (!ci_profile(card, gi, index, &info))
        return finish(NVML_ERROR_NOT_SUPPORTED, false);
    if (!ci_spot(state, gi, profile_by_id(card, gi->profile)->info.sliceCount, info.sliceCount, &start) ||
        state->ci_count == MAX_INSTANCES)
        return finish(NVML_ERROR_INSUFFICIENT_RESOURCES, false);
    unsigned int id = free_ci_id(state, gi);
    struct mig_ci *ci = &state->cis[state->ci_count++];
    *ci = (struct mig_ci){.gi = gi->id, .id = id, .profile = index, .placement = {start, info.sliceCount}};
    memcpy(ci->card, gi->card, sizeof ci->card);
    *created = ci_handle(ci->card, ci->gi, ci->id);
    return finish(*created ? NVML_SUCCESS : NVML_ERROR_MEMORY, true);
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t instance, unsigned int index,
                                                         nvmlComputeInstance_t *instances, unsigned int *count)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    if (instances == NULL || count == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    *count = 0;
    for (unsigned int i = 0; i < state->ci_count; i++) {
        const struct mig_ci *ci = &state->cis[i];
        if (ci->gi == gi->id && ci->profile == index && strcmp(ci->card, gi->card) == 0)
            instances[(*count)++] = ci_handle(ci->card, ci->gi, ci->id);
    }
    return finish(NVML_SUCCESS, false);
}

NVML_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned int id,
                                                            nvmlComputeInstance_t *found)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_gi *gi = NULL;
    nvmlReturn_t result = enter_gi(__func__, instance, &card, &state, &gi);
    if (result != NVML_SUCCESS)
        return result;
    if (found == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    if (ci_of(state, gi->card, gi->id, id) == NULL)
        return finish(NVML_ERROR_NOT_FOUND, false);
    *found = ci_handle(gi->card, gi->id, id);
    return finish(NVML_SUCCESS, false);
}

static nvmlReturn_t enter_ci(const char *function, nvmlComputeInstance_t instance, struct card **card,
                             struct mig_state **state, struct mig_ci **ci)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    *card = instance ? card_by_uuid(instance->card) : NULL;
    if (*card == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *state = mig_open();
    if (*state == NULL)
        return leave(NVML_ERROR_OPERATING_SYSTEM);
    *ci = ci_of(*state, instance->card, instance->gi, instance->id);
    return *ci ? NVML_SUCCESS : finish(NVML_ERROR_INVALID_ARGUMENT, false);
}

NVML_API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t instance, nvmlComputeInstanceInfo_t *info)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_ci *ci = NULL;
    nvmlReturn_t result = enter_ci(__func__, instance, &card, &state, &ci);
    if (result != NVML_SUCCESS)
        return result;
    if (info == NULL)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    *info = (nvmlComputeInstanceInfo_t){.gpuInstance = gi_handle(ci->card, ci->gi),
                                        .id = ci->id,
                                        .profileId = ci->profile,
                                        .placement = ci->placement};
    return finish(card_handle(card, &info->device), false);
}

NVML_API nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t instance, nvmlComputeInstanceInfo_t *info)
{
    return nvmlComputeInstanceGetInfo_v2(instance, info);
}

NVML_API nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t instance)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    struct mig_ci *ci = NULL;
    nvmlReturn_t result = enter_ci(__func__, instance, &card, &state, &ci);
    if (result != NVML_SUCCESS)
        return result;
    if (busy(card, ci->gi, ci->id))
        return finish(NVML_ERROR_IN_USE, false);
    *ci = state->cis[--state->ci_count];
    return finish(NVML_SUCCESS, true);
}

/* -- MIG devices ---------------------------------------------------------------- */

static uint64_t hash(uint64_t start, const char *text)
{
    for (; *text != '\0'; text++)
        start = (start ^ (unsigned char)*text) * 0x100000001B3ULL; /* FNV-1a */
    return start;
}

/* Of the same instance always the same UUID, as a real card makes it from its own and the instance's place. */
static void device_uuid(const struct mig_ci *ci, char uuid[NVML_UUID_SIZE])
{
    char seed[NVML_UUID_SIZE + 24];
    (void)snprintf(seed, sizeof seed, "%s/%u/%u", ci->card, ci->gi, ci->id);
    uint64_t high = hash(0xCBF29CE484222325ULL, seed);
    uint64_t low = hash(high, seed);
    (void)snprintf(uuid, NVML_UUID_SIZE, "MIG-%08x-%04x-5%03x-%04x-%012llx", (unsigned int)(high >> 32),
                   (unsigned int)(high >> 16 & 0xFFFFU), (unsigned int)(high & 0xFFFU),
                   (unsigned int)(low >> 48 & 0x3FFFU) | 0x8000U, (unsigned long long)(low & 0xFFFFFFFFFFFFULL));
}

nvmlReturn_t mig_device_by_uuid(const char *uuid, nvmlDevice_t *device)
{
    struct mig_state *state = mig_open();
    nvmlReturn_t result = NVML_ERROR_NOT_FOUND;
    for (unsigned int i = 0; state != NULL && i < state->ci_count; i++) {
        char own[NVML_UUID_SIZE];
        const struct mig_ci *ci = &state->cis[i];
        const struct card *card = card_by_uuid(ci->card);
        device_uuid(ci, own);
        if (card != NULL && strcmp(own, uuid) == 0)
            result = mig_handle(card, own, ci->gi, ci->id, device);
    }
    if (state != NULL)
        (void)mig_close(false);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *count = card->mig_current == SWITCH_NONE ? 0 : MAX_MIG_DEVICES;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *found)
{
    struct card *card = NULL;
    struct mig_state *state = NULL;
    unsigned int at = 0;
    nvmlReturn_t result = enter_mig(__func__, device, true, &card, &state);
    if (result != NVML_SUCCESS)
        return result;
    if (found == NULL || index >= MAX_MIG_DEVICES)
        return finish(NVML_ERROR_INVALID_ARGUMENT, false);
    for (unsigned int i = 0; i < state->ci_count; i++) {
        const struct mig_ci *ci = &state->cis[i];
        if (strcmp(ci->card, card->uuid) != 0 || at++ != index)
            continue;
        char uuid[NVML_UUID_SIZE];
        device_uuid(ci, uuid);
        return finish(mig_handle(card, uuid, ci->gi, ci->id, found), false);
    }
    return finish(NVML_ERROR_NOT_FOUND, false);
}

NVML_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (is == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *is = handle->mig;
    return leave(NVML_SUCCESS);
}

static nvmlReturn_t instance_id(const char *function, nvmlDevice_t device, bool compute, unsigned int *id)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(function, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (id == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!handle->mig)
        return leave(card->mig_current == SWITCH_NONE ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    *id = compute ? handle->ci : handle->gi;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    return instance_id(__func__, device, false, id);
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    return instance_id(__func__, device, true, id);
}

NVML_API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *parent)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (parent == NULL || !handle->mig)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    return leave(card_handle(card, parent));
}

static const struct profile *profile_of(const struct card *card, const struct handle *handle)
{
    struct mig_state *state = mig_open();
    if (state == NULL)
        return NULL;
    const struct mig_gi *gi = gi_of(state, card->uuid, handle->gi);
    const struct profile *profile = gi ? profile_by_id(card, gi->profile) : NULL;
    (void)mig_close(false);
    return profile;
}

void mig_device_name(const struct card *card, const struct handle *handle, char name[NVML_NAME_SIZE])
{
    const struct profile *profile = profile_of(card, handle);
    (void)snprintf(name, NVML_NAME_SIZE, "%.56s MIG %s", card->name, profile ? profile->name : "?");
}

nvmlReturn_t mig_device_memory(const struct card *card, const struct handle *handle, nvmlMemory_v2_t *memory)
{
    const struct profile *profile = profile_of(card, handle);
    if (profile == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    memory->total = profile->info.memorySizeMB << 20;
    memory->reserved = 0;
    memory->used = 0;
    for (unsigned int i = 0; i < card->process_count; i++)
        if (card->processes[i].gi == handle->gi && card->processes[i].memory != NVML_NO_VALUE_64)
            memory->used += card->processes[i].memory;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    const struct profile *profile = handle->mig ? profile_of(card, handle) : NULL;
    if (attributes == NULL || profile == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = profile->info.multiprocessorCount,
        .sharedCopyEngineCount = profile->info.copyEngineCount,
        .sharedDecoderCount = profile->info.decoderCount,
        .sharedEncoderCount = profile->info.encoderCount,
        .sharedJpegCount = profile->info.jpegCount,
        .sharedOfaCount = profile->info.ofaCount,
        .gpuInstanceSliceCount = profile->info.sliceCount,
        .computeInstanceSliceCount = profile->info.sliceCount,
        .memorySizeMB = profile->info.memorySizeMB,
    };
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
