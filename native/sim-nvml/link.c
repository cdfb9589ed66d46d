/* How cards are joined: NVLink, and the way over PCIe. */
#include <stdio.h>
#include <string.h>

#include "rack.h"

void pci_fill(nvmlPciInfo_t *pci, unsigned int domain, unsigned int bus, unsigned int device)
{
    memset(pci, 0, sizeof *pci);
    pci->domain = domain;
    pci->bus = bus;
    pci->device = device;
    (void)snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", domain & 0xFFFFU, bus & 0xFFU,
                   device & 0xFFU);
    (void)snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", domain, bus & 0xFFU, device & 0xFFU);
}

/* A card without NVLink does not know the question; a link beyond the last is a wrong argument. */
static nvmlReturn_t enter_link(const char *function, nvmlDevice_t device, unsigned int number, struct link **link)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(function, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (number >= NVML_MAX_LINKS)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (number >= card->link_count)
        return leave(card->link_count == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    *link = &card->links[number];
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int number, unsigned int *active)
{
    struct link *link = NULL;
    nvmlReturn_t result = enter_link(__func__, device, number, &link);
    if (result != NVML_SUCCESS)
        return result;
    if (active == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *active = link->end != LINK_NONE;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int number, unsigned int *version)
{
    struct link *link = NULL;
    nvmlReturn_t result = enter_link(__func__, device, number, &link);
    if (result != NVML_SUCCESS)
        return result;
    if (version == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *version = link->version;
    return leave(NVML_SUCCESS);
}

enum { CAPABILITY_P2P = 0, CAPABILITY_P2P_ATOMICS = 2, CAPABILITY_VALID = 5, CAPABILITY_COUNT = 6 };

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int number, unsigned int capability,
                                                    unsigned int *answer)
{
    struct link *link = NULL;
    nvmlReturn_t result = enter_link(__func__, device, number, &link);
    if (result != NVML_SUCCESS)
        return result;
    if (answer == NULL || capability >= CAPABILITY_COUNT)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *answer = link->end != LINK_NONE && (capability == CAPABILITY_P2P || capability == CAPABILITY_P2P_ATOMICS ||
                                         capability == CAPABILITY_VALID);
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int number, nvmlPciInfo_t *pci)
{
    struct link *link = NULL;
    nvmlReturn_t result = enter_link(__func__, device, number, &link);
    if (result != NVML_SUCCESS)
        return result;
    if (pci == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (link->end == LINK_NONE)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    pci_fill(pci, link->domain, link->bus, link->device);
    return leave(NVML_SUCCESS);
}

enum { REMOTE_GPU = 0, REMOTE_SWITCH = 2 };

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int number, unsigned int *type)
{
    struct link *link = NULL;
    nvmlReturn_t result = enter_link(__func__, device, number, &link);
    if (result != NVML_SUCCESS)
        return result;
    if (type == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (link->end == LINK_NONE)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *type = link->end == LINK_GPU ? REMOTE_GPU : REMOTE_SWITCH;
    return leave(NVML_SUCCESS);
}

/* -- pairs ------------------------------------------------------------------- */

/* Both cards are checked, in turn; the pointers hold until leave(). */
static nvmlReturn_t enter_pair(const char *function, nvmlDevice_t one, nvmlDevice_t other, struct card **card,
                               struct card **peer)
{
    nvmlReturn_t result = enter_card(function, other, peer);
    if (result != NVML_SUCCESS)
        return result;
    (void)leave(NVML_SUCCESS);
    result = enter_card(function, one, card);
    if (result != NVML_SUCCESS)
        return result;
    *peer = card_by_uuid(other->card);
    return *peer ? NVML_SUCCESS : leave(NVML_ERROR_GPU_IS_LOST);
}

NVML_API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t other, unsigned int *level)
{
    struct card *card = NULL;
    struct card *peer = NULL;
    nvmlReturn_t result = enter_pair(__func__, one, other, &card, &peer);
    if (result != NVML_SUCCESS)
        return result;
    if (level == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *level = card->path[peer->index];
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, unsigned int level, unsigned int *count,
                                                       nvmlDevice_t *near)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL || (*count > 0 && near == NULL))
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    unsigned int found = 0;
    for (unsigned int i = 0; i < the_rack.card_count; i++) {
        if (i == card->index || card->path[i] != level || the_rack.cards[i].lost)
            continue;
        if (found < *count && card_handle(&the_rack.cards[i], &near[found]) != NVML_SUCCESS)
            return leave(NVML_ERROR_MEMORY);
        found++;
    }
    /* A count of 0 asks how many; a smaller buffer gets what fits. */
    *count = *count == 0 || found < *count ? found : *count;
    return leave(NVML_SUCCESS);
}

enum { LEVEL_SAME_BOARD = 0 };

NVML_API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t one, nvmlDevice_t other, int *same)
{
    struct card *card = NULL;
    struct card *peer = NULL;
    nvmlReturn_t result = enter_pair(__func__, one, other, &card, &peer);
    if (result != NVML_SUCCESS)
        return result;
    if (same == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *same = card->path[peer->index] == LEVEL_SAME_BOARD;
    return leave(NVML_SUCCESS);
}

enum { P2P_NVLINK = 2, P2P_INDEXES = 5, P2P_OK = 0, P2P_NOT_SUPPORTED = 5 };

static bool joined(const struct card *card, const struct card *peer)
{
    for (unsigned int i = 0; i < card->link_count; i++) {
        const struct link *link = &card->links[i];
        if (link->end == LINK_SWITCH && peer->link_count > 0 && peer->links[0].end == LINK_SWITCH)
            return true;
        if (link->end == LINK_GPU && link->domain == peer->domain && link->bus == peer->bus &&
            link->device == peer->device)
            return true;
    }
    return false;
}

NVML_API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, unsigned int index,
                                             unsigned int *status)
{
    struct card *card = NULL;
    struct card *peer = NULL;
    nvmlReturn_t result = enter_pair(__func__, one, other, &card, &peer);
    if (result != NVML_SUCCESS)
        return result;
    if (status == NULL || index >= P2P_INDEXES || card == peer)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    bool linked = joined(card, peer);
    if (index == P2P_NVLINK)
        *status = linked ? P2P_OK : P2P_NOT_SUPPORTED;
    else
        *status = linked ? P2P_OK : card->p2p[peer->index];
    return leave(NVML_SUCCESS);
}
