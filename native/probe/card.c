/* The card as the driver and NVML name it. See probe.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#include "intercept/elf.h"
#include "probe.h"

const char *card_uuid(void)
{
    static char text[64];
    CUuuid u;
    cu.cuDeviceGetUuid(&u, device);
    int length = snprintf(text, sizeof text, "GPU-");
    for (int i = 0; i < 16; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                           u.bytes[i]);
    return text;
}

/* This process's bytes on the card by NVML; -1 when it does not say. */
long long nvml_bytes(void)
{
    static int (*list)(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *);
    static nvmlDevice_t card;
    if (list == NULL) {
        void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
        if (nvml == NULL)
            return -1;
        int (*init)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
        int (*get)(const char *, nvmlDevice_t *) = (int (*)(const char *, nvmlDevice_t *))dlsym(nvml, "nvmlDeviceGetHandleByUUID");
        list = (int (*)(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *))dlsym(nvml, "nvmlDeviceGetComputeRunningProcesses_v3");
        if (init() != 0 || get(card_uuid(), &card) != 0)
            return -1;
    }
    nvmlProcessInfo_t entries[256];
    unsigned int count = 256;
    if (list(card, &count, entries) != 0)
        return -1;
    for (unsigned int i = 0; i < count; i++) {
        if (entries[i].pid == (unsigned int)getpid())
            return (long long)entries[i].bytes;
    }
    return -1;
}

/* As NVML tells it; empty when it does not. */
const char *driver_version(void)
{
    static char text[96];
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (nvml == NULL)
        return text;
    int (*init)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
    int (*get)(char *, unsigned int) = (int (*)(char *, unsigned int))dlsym(nvml, "nvmlSystemGetDriverVersion");
    if (init == NULL || get == NULL || init() != 0 || get(text, sizeof text) != 0)
        text[0] = '\0';
    return text;
}

void tell_card(void)
{
    char name[128];
    int version = 0, cards = 0;
    size_t total = 0, left = 0;
    start(false);
    MUST(cuDeviceGetCount, &cards);
    MUST(cuDeviceGetName, name, sizeof name, device);
    MUST(cuDriverGetVersion, &version);
    MUST(cuMemGetInfo, &left, &total);
    printf("{\"card\": \"%s\", \"uuid\": \"%s\", \"cuda\": %d, \"driver\": \"%s\", \"total_mib\": %zu, \"free_mib\": %zu, "
           "\"nvml_mib\": %.1f, \"cards\": %d, \"hooked\": %d}\n",
           name, card_uuid(), version, driver_version(), total / MIB, left / MIB, (double)nvml_bytes() / (double)MIB, cards,
           hami_elf_find("libcuda.so", "cuLaunchKernel") != (void *)cu.cuLaunchKernel);
}

void tell_nvml(void)
{
    nvmlMemory_t memory = {0};
    nvmlDevice_t card;
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (nvml == NULL)
        fail(dlerror(), 0);
    int (*begin)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
    int (*get)(unsigned int, nvmlDevice_t *) = (int (*)(unsigned int, nvmlDevice_t *))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    int (*ask)(nvmlDevice_t, nvmlMemory_t *) = (int (*)(nvmlDevice_t, nvmlMemory_t *))dlsym(nvml, "nvmlDeviceGetMemoryInfo");
    if (begin() != 0 || get(0, &card) != 0 || ask(card, &memory) != 0)
        fail("NVML", 0);
    printf("{\"total_mib\": %llu, \"used_mib\": %llu}\n", memory.total / MIB, memory.used / MIB);
}

void time_init(void)
{
    const int64_t from = now_ns();
    MUST(cuInit, 0);
    printf("{\"init_ms\": %.3f}\n", (double)(now_ns() - from) / 1e6);
}
