/* MIG: GPU instances, which split a card. */
#define _GNU_SOURCE
#include <string.h>

#include "mig_state.h"

/* Handles for instances; like device handles they stay valid as pointers, whatever happens to the instance. */
struct gpu_instance {
    char card[NVML_UUID_SIZE];
    unsigned int id;
    bool used;
};

static struct gpu_instance gi_handles[MAX_INSTANCES];

struct gpu_instance *gi_handle(const char *card, unsigned int id)
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

struct mig_gi *gi_of(struct mig_state *state, const char *card, unsigned int id)
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
nvmlReturn_t enter_gi(const char *function, nvmlGpuInstance_t instance, struct card **card,
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
