/* What went wrong in other libraries of this kind and must not here: each answer is a number to look at. See probe.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "probe.h"

static size_t free_mib(void)
{
    size_t left = 0, total = 0;
    MUST(cuMemGetInfo, &left, &total);
    return left / MIB;
}

static CUresult (*release_primary)(CUdevice);

/* Frees twice, and what was never given: the driver's own answers. */
static void frees(void)
{
    CUdeviceptr p;
    MUST(cuMemAlloc, &p, 64 * MIB);
    const CUresult first = cu.cuMemFree(p), second = cu.cuMemFree(p), never = cu.cuMemFree(12345);
    printf("{\"freed\": %d, \"freed_twice\": %d, \"never_given\": %d, ", first, second, never);
}

/* A second reference to the primary context takes nothing, and its end gives nothing back; the last one gives all. */
static void references(void)
{
    CUcontext again;
    const size_t before = free_mib();
    MUST(cuDevicePrimaryCtxRetain, &again, device);
    const size_t twice = free_mib();
    release_primary(device);
    printf("\"one_reference\": %zu, \"two\": %zu, \"one_again\": %zu, ", before, twice, free_mib());
}

/* On the second card: a pool's memory and a module's data are that card's, whatever the first one holds. */
static void second_card(void)
{
    CUdevice second;
    CUcontext other;
    CUstream stream;
    CUdeviceptr a, b;
    CUmodule module;
    if (cu.cuDeviceGet(&second, 1) != CUDA_SUCCESS) {
        printf("\"cards\": 1}\n");
        return;
    }
    MUST(cuMemAlloc, &a, 512 * MIB);
    const size_t first_before = free_mib();
    MUST(cuDevicePrimaryCtxRetain, &other, second);
    MUST(cuCtxSetCurrent, other);
    MUST(cuStreamCreate, &stream, 1);
    const size_t before = free_mib();
    MUST(cuMemAllocAsync, &b, 256 * MIB, stream);
    const size_t pooled = free_mib();
    MUST(cuModuleLoadData, &module, "data 128");
    const size_t loaded = free_mib();
    MUST(cuCtxSetCurrent, context);
    printf("\"cards\": 2, \"second\": %zu, \"pooled\": %zu, \"loaded\": %zu, \"first_changed\": %zu}\n", before, pooled, loaded,
           first_before - free_mib());
}

void defects(void)
{
    void *address = dlsym(driver, "cuDevicePrimaryCtxRelease_v2");
    memcpy(&release_primary, &address, sizeof address);
    start(false);
    frees();
    references();
    second_card();
}
