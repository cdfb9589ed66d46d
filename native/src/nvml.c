/* See nvml.h; the NVML hooks, which show the slice as the card, are here too. */
#include "nvml.h"

#include <string.h>
#include <unistd.h>

#include "intercept/intercept.h"
#include "state.h"

enum { MAX_PROCESSES = 512 };

nvmlDevice_t hami_nvml_card(const char *uuid)
{
    nvmlDevice_t card = NULL;
    if (!hami_nvml_uses_load() || USE(nvmlDeviceGetHandleByUUID, uuid, &card) != NVML_SUCCESS)
        return NULL;
    return card;
}

static bool is_ours(unsigned int pid)
{
    return hami_ledger_has(hami_state.ledger, (int)pid);
}

/* The host's pid, as the broker told it; our own number where there is no broker, or where NVML does not know that pid. */
static unsigned int own_pid(const nvmlProcessInfo_t *list, unsigned int count)
{
    const unsigned int host = (unsigned int)atomic_load(&hami_state.host_pid);
    for (unsigned int i = 0; host != 0 && i < count; i++) {
        if (list[i].pid == host)
            return host;
    }
    return (unsigned int)getpid();
}

bool hami_nvml_read(nvmlDevice_t card, hami_nvml_view *view)
{
    nvmlProcessInfo_t list[MAX_PROCESSES];
    unsigned int count = MAX_PROCESSES;
    if (card == NULL || BEHIND(nvmlDeviceGetComputeRunningProcesses_v3, card, &count, list) != NVML_SUCCESS)
        return false;
    const unsigned int own = own_pid(list, count < MAX_PROCESSES ? count : MAX_PROCESSES);
    view->own_bytes = -1;
    view->others = 0;
    for (unsigned int i = 0; i < count && i < MAX_PROCESSES; i++) {
        if (list[i].pid == own && list[i].bytes != ~0ull)
            view->own_bytes = (int64_t)list[i].bytes;
        else
            view->others += !is_ours(list[i].pid);
    }
    return true;
}

/* ---- hooks ---- */

static hami_card *card_of(nvmlDevice_t handle)
{
    char uuid[96];
    if (!atomic_load(&hami_active) || !hami_nvml_uses_load() ||
        USE(nvmlDeviceGetUUID, handle, uuid, (unsigned int)sizeof uuid) != NVML_SUCCESS)
        return NULL;
    for (int i = 0; i < hami_state.card_count; i++) {
        if (strcmp(hami_state.cards[i].uuid, uuid) == 0)
            return &hami_state.cards[i];
    }
    return NULL;
}

CUresult nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, void *memory)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetMemoryInfo, handle, memory);
    hami_card *card = result == NVML_SUCCESS ? card_of(handle) : NULL;
    nvmlMemory_t *m = memory;
    if (card != NULL && (unsigned long long)atomic_load(&card->limit) < m->total) {
        m->total = (unsigned long long)atomic_load(&card->limit);
        m->used = (unsigned long long)hami_used(card);
        m->free = m->total - m->used;
    }
    return result;
}

CUresult nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, void *memory)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetMemoryInfo_v2, handle, memory);
    hami_card *card = result == NVML_SUCCESS ? card_of(handle) : NULL;
    nvmlMemory_v2_t *m = memory;
    if (card != NULL && (unsigned long long)atomic_load(&card->limit) < m->total) {
        m->total = (unsigned long long)atomic_load(&card->limit);
        m->reserved = 0; /* what the driver keeps for itself is not taken from the slice */
        m->used = (unsigned long long)hami_used(card);
        m->free = m->total - m->used;
    }
    return result;
}

/* Keeps the processes of this container. `stride`: size of one entry; each begins with the pid. */
static CUresult only_ours(CUresult result, nvmlDevice_t handle, unsigned int *count, void *list, size_t stride)
{
    if (result != NVML_SUCCESS || list == NULL || !hami_state.policy.from_file || card_of(handle) == NULL)
        return result;
    unsigned int kept = 0;
    for (unsigned int i = 0; i < *count; i++) {
        char *entry = (char *)list + i * stride;
        unsigned int pid;
        memcpy(&pid, entry, sizeof pid);
        if (is_ours(pid))
            memmove((char *)list + stride * kept++, entry, stride);
    }
    *count = kept;
    return result;
}

#define PROCESSES(name, type)                                                                  \
    CUresult name(nvmlDevice_t card, unsigned int *count, void *processes)                     \
    {                                                                                          \
        hami_nvml_load();                                                                      \
        return only_ours(BEHIND(name, card, count, processes), card, count, processes, sizeof(type)); \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_t)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_t)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_t)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)
