/* What a card is: handles, identity, place, single numbers. */
#define _GNU_SOURCE
#include <string.h>
#include <strings.h>

#include "rack.h"

/* -- finding cards ---------------------------------------------------------- */

static nvmlReturn_t count_of(const char *function, unsigned int *count)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *count = the_rack.card_count;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    return count_of(__func__, count);
}

NVML_API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return count_of(__func__, count);
}

/* A card's own faults count here too: a card that has fallen off the bus may give no handle. */
static nvmlReturn_t handle_of(const char *function, const struct card *card, nvmlDevice_t *device)
{
    nvmlDevice_t found = NULL;
    struct card *same = NULL;
    nvmlReturn_t result = card_handle(card, &found);
    if (result != NVML_SUCCESS)
        return leave(result);
    (void)leave(NVML_SUCCESS);
    result = enter_card(function, found, &same);
    if (result != NVML_SUCCESS)
        return result;
    *device = found;
    return leave(NVML_SUCCESS);
}

static nvmlReturn_t by_index(const char *function, unsigned int index, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (device == NULL || index >= the_rack.card_count)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    return handle_of(function, &the_rack.cards[index], device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    return by_index(__func__, index, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return by_index(__func__, index, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    if (uuid == NULL || device == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    const struct card *card = card_by_uuid(uuid);
    if (card != NULL)
        return handle_of(__func__, card, device);
    return leave(mig_device_by_uuid(uuid, device));
}

static nvmlReturn_t by_bus_id(const char *function, const char *bus_id, nvmlDevice_t *device)
{
    unsigned int domain;
    unsigned int bus;
    unsigned int number;
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (bus_id == NULL || device == NULL || sscanf(bus_id, "%x:%x:%x", &domain, &bus, &number) != 3)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int i = 0; i < the_rack.card_count; i++) {
        const struct card *card = &the_rack.cards[i];
        if (card->domain == domain && card->bus == bus && card->device == number)
            return handle_of(function, card, device);
    }
    return leave(NVML_ERROR_NOT_FOUND);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    return by_bus_id(__func__, bus_id, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return by_bus_id(__func__, bus_id, device);
}

/* -- texts ------------------------------------------------------------------- */

NVML_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (name == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!handle->mig)
        return leave(copy_text(name, length, card->name));
    char text[NVML_NAME_SIZE];
    mig_device_name(card, handle, text);
    return leave(copy_text(name, length, text));
}

NVML_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    return leave(uuid ? copy_text(uuid, length, handle->uuid) : NVML_ERROR_INVALID_ARGUMENT);
}

NVML_API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (card->serial[0] == '\0')
        return leave(NVML_ERROR_NOT_SUPPORTED);
    return leave(serial ? copy_text(serial, length, card->serial) : NVML_ERROR_INVALID_ARGUMENT);
}

/* -- single numbers ---------------------------------------------------------- */

/* A query that fills one number of a card; `supported` false answers NOT_SUPPORTED. */
#define NUMBER(function, type, supported, value)                                                                       \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, type *number)                                                  \
    {                                                                                                                  \
        struct card *card;                                                                                             \
        nvmlReturn_t result = enter_card(__func__, device, &card);                                                     \
        if (result != NVML_SUCCESS)                                                                                    \
            return result;                                                                                             \
        if (number == NULL)                                                                                            \
            return leave(NVML_ERROR_INVALID_ARGUMENT);                                                                 \
        if (!(supported))                                                                                              \
            return leave(NVML_ERROR_NOT_SUPPORTED);                                                                    \
        *number = (value);                                                                                             \
        return leave(NVML_SUCCESS);                                                                                    \
    }

enum { BRAND_NVIDIA = 14, PERSISTENCE_ON = 1, COMPUTE_DEFAULT = 0, PERFORMANCE_P0 = 0 };

NUMBER(nvmlDeviceGetMinorNumber, unsigned int, true, card->minor)
NUMBER(nvmlDeviceGetNumGpuCores, unsigned int, true, card->cores)
NUMBER(nvmlDeviceGetArchitecture, unsigned int, true, card->architecture)
NUMBER(nvmlDeviceGetBrand, unsigned int, true, BRAND_NVIDIA)
NUMBER(nvmlDeviceGetPowerUsage, unsigned int, card->power_limit > 0, card->power)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned int, card->power_limit > 0, card->power_limit)
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned int, card->power_limit > 0, card->power_limit)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned int, true, PERSISTENCE_ON)
NUMBER(nvmlDeviceGetComputeMode, unsigned int, true, COMPUTE_DEFAULT)
NUMBER(nvmlDeviceGetPerformanceState, unsigned int, true, PERFORMANCE_P0)
NUMBER(nvmlDeviceGetMultiGpuBoard, unsigned int, true, 0)
NUMBER(nvmlDeviceGetBoardId, unsigned int, true, card->domain << 16 | card->bus << 8)
NUMBER(nvmlDeviceGetNumaNodeId, unsigned int, false, 0) /* only where the card's memory is a NUMA node of its own */

NVML_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (index == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *index = handle->mig ? 0 : card->index;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(__func__, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (major == NULL || minor == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *major = card->compute_major;
    *minor = card->compute_minor;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *temperature)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (sensor != 0 || temperature == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *temperature = card->temperature;
    return leave(NVML_SUCCESS);
}

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY };

static nvmlReturn_t clock_of(const char *function, nvmlDevice_t device, unsigned int type, bool max,
                             unsigned int *clock)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(function, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (type > CLOCK_MEMORY || clock == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (type == CLOCK_MEMORY)
        *clock = max ? card->memory_clock_max : card->memory_clock;
    else
        *clock = max ? card->sm_clock_max : card->sm_clock;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *clock)
{
    return clock_of(__func__, device, type, false, clock);
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *clock)
{
    return clock_of(__func__, device, type, true, clock);
}

NVML_API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (current == NULL || pending == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (card->ecc == SWITCH_NONE)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *current = card->ecc == SWITCH_ON;
    *pending = *current;
    return leave(NVML_SUCCESS);
}

/* -- place ------------------------------------------------------------------- */

static nvmlReturn_t pci_of(const char *function, nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(function, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (pci == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    pci_fill(pci, card->domain, card->bus, card->device);
    pci->pciDeviceId = card->pci_id;
    pci->pciSubSystemId = card->pci_subsystem;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return pci_of(__func__, device, pci);
}

static nvmlReturn_t old_pci_of(const char *function, nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    nvmlPciInfo_t full;
    nvmlReturn_t result = pci_of(function, device, pci ? &full : NULL);
    if (result != NVML_SUCCESS)
        return result;
    memset(pci, 0, sizeof *pci);
    memcpy(pci->busId, full.busIdLegacy, sizeof pci->busId);
    pci->domain = full.domain;
    pci->bus = full.bus;
    pci->device = full.device;
    pci->pciDeviceId = full.pciDeviceId;
    pci->pciSubSystemId = full.pciSubSystemId;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    return old_pci_of(__func__, device, pci);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    return old_pci_of(__func__, device, pci);
}

/* A bit mask of the host's memory nodes next to the card; the driver fills the words it is given. */
NVML_API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int size, unsigned long *nodes,
                                                  unsigned int scope)
{
    const unsigned int bits = 8U * (unsigned int)sizeof(unsigned long);
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (size == 0 || nodes == NULL || scope > 1)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    unsigned int node = card->numa < 0 ? 0 : (unsigned int)card->numa;
    if (node >= size * bits)
        return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    memset(nodes, 0, size * sizeof(unsigned long));
    nodes[node / bits] = 1UL << (node % bits);
    return leave(NVML_SUCCESS);
}
