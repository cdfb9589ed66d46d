/* How a card does: memory, load, wear. */
#include "live.h"
#include "rack.h"

/* Total, reserved and used bytes of the card, or of a MIG device's share of it. */
static nvmlReturn_t memory_of(const char *function, nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(function, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (!card->memory_known)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    if (handle->mig) {
        result = mig_device_memory(card, handle, memory);
    } else {
        memory->total = card->memory_total;
        memory->reserved = card->memory_reserved;
        memory->used = card->memory_used + live_bytes(card->index);
    }
    unsigned long long taken = memory->reserved + memory->used;
    memory->free = taken < memory->total ? memory->total - taken : 0;
    return leave(result);
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlMemory_v2_t full = {0};
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = memory_of(__func__, device, &full);
    if (result != NVML_SUCCESS)
        return result;
    *memory = (nvmlMemory_t){.total = full.total, .free = full.free, .used = full.used + full.reserved};
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    const unsigned int version = (unsigned int)sizeof(nvmlMemory_v2_t) | 2U << 24;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != version)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return memory_of(__func__, device, memory);
}

NVML_API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    const unsigned long long mib = 1ULL << 20;
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    memory->bar1Total = 256 * mib; /* a small window, as without resizable BAR */
    memory->bar1Used = mib;
    memory->bar1Free = memory->bar1Total - memory->bar1Used;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (utilization == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (mig_is_on(card)) /* of the card and of its MIG devices alike, the driver has no figure */
        return leave(NVML_ERROR_NOT_SUPPORTED);
    const unsigned int live = live_percent(card->index);
    utilization->gpu = live > card->busy_gpu ? live : card->busy_gpu;
    utilization->memory = card->busy_memory;
    return leave(NVML_SUCCESS);
}

/* -- wear ---------------------------------------------------------------------- */

NVML_API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable,
                                                unsigned int *uncorrectable, unsigned int *pending,
                                                unsigned int *failed)
{
    const unsigned int ampere = 7; /* older cards retire pages instead */
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (correctable == NULL || uncorrectable == NULL || pending == NULL || failed == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (card->ecc == SWITCH_NONE || card->architecture < ampere)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *correctable = card->remapped_correctable;
    *uncorrectable = card->remapped_uncorrectable;
    *pending = card->remap_pending;
    *failed = card->remap_failed;
    return leave(NVML_SUCCESS);
}

enum { FIELD_RECOVERY_ACTION = 230, VALUE_UNSIGNED_INT = 1 };

/* Of the hundreds of fields only what the agent reads is there; the rest say so one by one, as old drivers do. */
NVML_API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count <= 0 || values == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) {
        values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        if (values[i].fieldId == FIELD_RECOVERY_ACTION) {
            values[i].nvmlReturn = NVML_SUCCESS;
            values[i].valueType = VALUE_UNSIGNED_INT;
            values[i].value.uiVal = card->recovery;
        }
    }
    return leave(NVML_SUCCESS);
}
