/* See nvml.h; the NVML hooks, which show the slice as the card, are here too. */
#include "process/nvml.h"

#include <string.h>
#include <unistd.h>

#include "intercept/intercept.h"
#include "limits/onlook.h"
#include "process/state.h"

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
    return atomic_load(&hami_active) ? hami_ledger_has(hami_state.ledger, (int)pid) : hami_onlook_has((int)pid);
}

/* Our own, which is what drivers tell in a pid namespace; the host's, as the broker told it, where NVML does not know that one. */
static unsigned int own_pid(const nvmlProcessInfo_t *list, unsigned int count)
{
    const unsigned int own = (unsigned int)getpid(), host = (unsigned int)atomic_load(&hami_state.host_pid);
    for (unsigned int i = 0; i < count; i++) {
        if (list[i].pid == own)
            return own;
    }
    return host != 0 ? host : own;
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

/* What is to be shown as the card, bytes. False: the card as it is. */
static bool slice_of(nvmlDevice_t handle, int64_t *limit, int64_t *used)
{
    char uuid[96];
    if (!hami_nvml_uses_load() || USE(nvmlDeviceGetUUID, handle, uuid, (unsigned int)sizeof uuid) != NVML_SUCCESS)
        return false;
    if (!atomic_load(&hami_active))
        return hami_onlook(uuid, limit, used);
    for (int i = 0; i < hami_state.card_count; i++) {
        hami_card *card = &hami_state.cards[i];
        if (strcmp(card->uuid, uuid) == 0) {
            const hami_slice slice = hami_slice_of(card);
            *limit = slice.limit;
            *used = slice.used;
            return true;
        }
    }
    return false;
}

CUresult nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, void *memory)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetMemoryInfo, handle, memory);
    int64_t limit, used;
    nvmlMemory_t *m = memory;
    if (result == NVML_SUCCESS && slice_of(handle, &limit, &used) && (unsigned long long)limit < m->total) {
        m->total = (unsigned long long)limit;
        m->used = (unsigned long long)used;
        m->free = m->total - m->used;
    }
    return result;
}

CUresult nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, void *memory)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetMemoryInfo_v2, handle, memory);
    int64_t limit, used;
    nvmlMemory_v2_t *m = memory;
    if (result == NVML_SUCCESS && slice_of(handle, &limit, &used) && (unsigned long long)limit < m->total) {
        m->total = (unsigned long long)limit;
        m->reserved = 0; /* what the driver keeps for itself is not taken from the slice */
        m->used = (unsigned long long)used;
        m->free = m->total - m->used;
    }
    return result;
}

/* Whether this container's processes are all that it may see: its limits came from the agent. */
static bool hides(void)
{
    return atomic_load(&hami_active) ? hami_state.policy.from_file : hami_onlook_hides();
}

/* Keeps the processes of this container. `stride`: size of one entry; its pid is at `at`. */
static CUresult only_ours(CUresult result, unsigned int *count, void *list, size_t stride, size_t at)
{
    if (result != NVML_SUCCESS || list == NULL || !hides())
        return result;
    unsigned int kept = 0;
    for (unsigned int i = 0; i < *count; i++) {
        char *entry = (char *)list + i * stride;
        unsigned int pid;
        memcpy(&pid, entry + at, sizeof pid);
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
        return only_ours(BEHIND(name, card, count, processes), count, processes, sizeof(type), 0);    \
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

CUresult nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t card, nvmlProcessDetailList_t *list)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetRunningProcessDetailList, card, list);
    return list == NULL ? result : only_ours(result, &list->count, list->entries, sizeof *list->entries, 0);
}

CUresult nvmlDeviceGetProcessUtilization(nvmlDevice_t card, nvmlProcessUtilizationSample_t *samples, unsigned int *count,
                                         unsigned long long since_us)
{
    hami_nvml_load();
    return only_ours(BEHIND(nvmlDeviceGetProcessUtilization, card, samples, count, since_us), count, samples, sizeof *samples, 0);
}

CUresult nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t card, nvmlProcessesUtilizationInfo_t *list)
{
    hami_nvml_load();
    const CUresult result = BEHIND(nvmlDeviceGetProcessesUtilizationInfo, card, list);
    return list == NULL ? result
                        : only_ours(result, &list->count, list->entries, sizeof *list->entries,
                                    offsetof(nvmlProcessUtilizationInfo_v1_t, pid));
}
