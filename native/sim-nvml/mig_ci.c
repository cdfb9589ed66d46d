/* MIG: compute instances, which split a GPU instance. */
#define _GNU_SOURCE
#include <string.h>

#include "mig_state.h"

struct compute_instance {
    char card[NVML_UUID_SIZE];
    unsigned int gi, id;
    bool used;
};

static struct compute_instance ci_handles[MAX_INSTANCES];

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

static bool busy(const struct card *card, unsigned int gi, unsigned int ci)
{
    for (unsigned int i = 0; i < card->process_count; i++)
        if (card->processes[i].gi == gi && card->processes[i].ci == ci)
            return true;
    return false;
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
