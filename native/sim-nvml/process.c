/* The processes on a card: who they are, what memory they hold. */
#include <stdlib.h>
#include <unistd.h>

#include "live.h"
#include "rack.h"

/*
 * Which processes a device handle shows: all of a card, those of its instance
 * for a MIG device. With MIG on, the card itself shows all with their instances.
 */
static bool shows(const struct handle *handle, const struct process *process, enum process_kind kind)
{
    if (process->kind != kind)
        return false;
    return !handle->mig || (process->gi == handle->gi && process->ci == handle->ci);
}

/* Two sizes of entry are in use: the first version's has no instance ids. */
static void fill(void *entries, unsigned int at, bool old, const struct process *process)
{
    if (old)
        ((nvmlProcessInfo_v1_t *)entries)[at] =
            (nvmlProcessInfo_v1_t){.pid = process->pid, .usedGpuMemory = process->memory};
    else
        ((nvmlProcessInfo_t *)entries)[at] = (nvmlProcessInfo_t){.pid = process->pid,
                                                                 .usedGpuMemory = process->memory,
                                                                 .gpuInstanceId = process->gi,
                                                                 .computeInstanceId = process->ci};
}

/* NVML's way with lists: too small a buffer is an error that tells the size needed. */
static nvmlReturn_t list(const char *function, nvmlDevice_t device, enum process_kind kind, unsigned int *count,
                         void *entries, bool old)
{
    struct card *card = NULL;
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(function, device, &card, &handle);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL || (*count > 0 && entries == NULL))
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    unsigned int found = 0;
    for (unsigned int i = 0; i < card->process_count; i++) {
        if (!shows(handle, &card->processes[i], kind))
            continue;
        if (found < *count)
            fill(entries, found, old, &card->processes[i]);
        found++;
    }
    struct live_process live[MAX_PROCESSES];
    const bool hides = getenv("HAMI_SIM_NVML_HIDES") != NULL; /* as in a container whose driver does not know its pids */
    unsigned int running = !hides && kind == PROCESS_COMPUTE && !handle->mig ? live_processes(card->index, live, MAX_PROCESSES) : 0;
    for (unsigned int i = 0; i < running; i++) {
        if (live[i].pid == 0)
            continue;
        struct process process = {.pid = live[i].pid, .memory = live[i].bytes, .gi = NVML_NO_VALUE, .ci = NVML_NO_VALUE};
        if (found < *count)
            fill(entries, found, old, &process);
        found++;
    }
    result = found > *count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = found;
    return leave(result);
}

/* HAMI_SIM_NVML_MS: how old an answer is when it comes. */
static nvmlReturn_t late(nvmlReturn_t result)
{
    const char *ms = getenv("HAMI_SIM_NVML_MS");
    if (ms != NULL)
        usleep((useconds_t)(1000 * atoi(ms)));
    return result;
}

#define LIST(function, kind, entry, old)                                                                               \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, entry *entries)                           \
    {                                                                                                                  \
        return late(list(__func__, device, kind, count, entries, old));                                                \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, PROCESS_COMPUTE, nvmlProcessInfo_v1_t, true)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, PROCESS_COMPUTE, nvmlProcessInfo_t, false)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, PROCESS_COMPUTE, nvmlProcessInfo_t, false)
LIST(nvmlDeviceGetGraphicsRunningProcesses, PROCESS_GRAPHICS, nvmlProcessInfo_v1_t, true)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, PROCESS_GRAPHICS, nvmlProcessInfo_t, false)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, PROCESS_GRAPHICS, nvmlProcessInfo_t, false)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, PROCESS_MPS, nvmlProcessInfo_v1_t, true)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, PROCESS_MPS, nvmlProcessInfo_t, false)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, PROCESS_MPS, nvmlProcessInfo_t, false)

/* All of one kind, in entries that say besides what is protected: nothing is. */
NVML_API nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *details)
{
    static const enum process_kind kinds[] = {PROCESS_COMPUTE, PROCESS_GRAPHICS, PROCESS_MPS};
    nvmlProcessInfo_t plain[MAX_PROCESSES];
    unsigned int count = MAX_PROCESSES;
    if (details == NULL || details->mode > 2)
        return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t result = list(__func__, device, kinds[details->mode], &count, plain, false);
    const bool fits = count <= details->numProcArrayEntries;
    for (unsigned int i = 0; result == NVML_SUCCESS && fits && i < count; i++)
        details->procArray[i] = (nvmlProcessDetail_v1_t){plain[i].pid, plain[i].usedGpuMemory, plain[i].gpuInstanceId,
                                                         plain[i].computeInstanceId, 0};
    details->numProcArrayEntries = count;
    return result == NVML_SUCCESS && !fits ? NVML_ERROR_INSUFFICIENT_SIZE : result;
}
