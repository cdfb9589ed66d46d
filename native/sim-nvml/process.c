/* The processes on a card: who they are, what memory they hold, how busy they keep it. */
#include <time.h>

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
    unsigned int running = kind == PROCESS_COMPUTE && !handle->mig ? live_processes(card->index, live, MAX_PROCESSES) : 0;
    for (unsigned int i = 0; i < running; i++, found++) {
        struct process process = {.pid = live[i].pid, .memory = live[i].bytes, .gi = NVML_NO_VALUE, .ci = NVML_NO_VALUE};
        if (found < *count)
            fill(entries, found, old, &process);
    }
    result = found > *count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = found;
    return leave(result);
}

#define LIST(function, kind, entry, old)                                                                               \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, entry *entries)                           \
    {                                                                                                                  \
        return list(__func__, device, kind, count, entries, old);                                                      \
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

static unsigned long long now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (unsigned long long)now.tv_sec * 1000000ULL + (unsigned long long)now.tv_nsec / 1000ULL;
}

static bool idle(const struct process *process)
{
    return process->sm == 0 && process->mem == 0 && process->enc == 0 && process->dec == 0;
}

/* One sample, of this moment, for each process that is not idle; none at all is NOT_FOUND. */
NVML_API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                                      unsigned int *count, unsigned long long last_seen)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (mig_is_on(card))
        return leave(NVML_ERROR_NOT_SUPPORTED);
    unsigned long long now = now_us();
    unsigned int found = 0;
    for (unsigned int i = 0; i < card->process_count && last_seen < now; i++) {
        const struct process *process = &card->processes[i];
        if (idle(process))
            continue;
        if (samples != NULL && found < *count)
            samples[found] = (nvmlProcessUtilizationSample_t){.pid = process->pid,
                                                              .timeStamp = now,
                                                              .smUtil = process->sm,
                                                              .memUtil = process->mem,
                                                              .encUtil = process->enc,
                                                              .decUtil = process->dec};
        found++;
    }
    if (found == 0)
        result = NVML_ERROR_NOT_FOUND;
    else if (samples == NULL || found > *count)
        result = NVML_ERROR_INSUFFICIENT_SIZE;
    *count = found;
    return leave(result);
}
