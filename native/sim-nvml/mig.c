/* MIG: the mode of a card, and the sizes of GPU instance it offers. */
#define _GNU_SOURCE
#include <string.h>

#include "mig_state.h"

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
nvmlReturn_t enter_mig(const char *function, nvmlDevice_t device, bool needs_on, struct card **card,
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

nvmlReturn_t finish(nvmlReturn_t result, bool changed)
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

const struct profile *profile_by_id(const struct card *card, unsigned int id)
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
