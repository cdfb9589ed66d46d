/* MIG: the devices that programs see, one for each compute instance. */
#define _GNU_SOURCE
#include <string.h>

#include "mig_state.h"

#define MAX_MIG_DEVICES 7U

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
