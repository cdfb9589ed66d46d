/* What the library adds to a call: by what lookups give and by the driver's own entry point, in turn. See probe.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "intercept/elf.h"
#include "probe.h"

enum { KERNELS_MOST = 64 };

/* So many empty kernels, each of a module of its own, their handles at distances that nobody knows, as in a large program. */
static void load_kernels(CUfunction *kernels, int count)
{
    for (int i = 0; i < count; i++) {
        CUmodule module;
        if (malloc((size_t)(now_ns() % 20011)) == NULL)
            fail("malloc", 0);
        MUST(cuModuleLoadData, &module, ptx);
        MUST(cuModuleGetFunction, &kernels[i], module, "nothing");
    }
}

/* Both ways in turn, in one process: the driver's own entry point, read from its symbol table, and what lookups give. */
void launches(long count, int kernels)
{
    enum { BATCH = 200, MOST = 20000 };
    static CUfunction each[KERNELS_MOST];
    static double direct[MOST], looked_up[MOST], added[MOST];
    CUresult (*entry)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                      CUstream, void **, void **) = NULL;
    int batches = 0;
    start(true);
    kernels = kernels < 1 ? 1 : kernels > KERNELS_MOST ? KERNELS_MOST : kernels;
    load_kernels(each, kernels);
    void *address = hami_elf_find("libcuda.so", "cuLaunchKernel");
    memcpy(&entry, &address, sizeof entry);
    if (entry == NULL)
        fail("no cuLaunchKernel in the driver", 0);
    for (long done = 0; done < count && batches < MOST; done += BATCH) {
        for (int turn = 0; turn < 2; turn++) {
            const bool ours = (turn == 0) == (batches % 2 == 0);
            MUST(cuCtxSynchronize);
            const int64_t from = now_ns();
            for (int i = 0; i < BATCH; i++)
                (ours ? cu.cuLaunchKernel : entry)(each[i % kernels], 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
            (ours ? looked_up : direct)[batches] = (double)(now_ns() - from) / (double)BATCH;
        }
        added[batches] = looked_up[batches] - direct[batches];
        batches++;
    }
    MUST(cuCtxSynchronize);
    qsort(direct, (size_t)batches, sizeof direct[0], by_value);
    qsort(looked_up, (size_t)batches, sizeof looked_up[0], by_value);
    qsort(added, (size_t)batches, sizeof added[0], by_value);
    printf("{\"direct_ns\": %.1f, \"looked_up_ns\": %.1f, \"added_ns\": %.1f, \"added_p25\": %.1f, \"added_p75\": %.1f, "
           "\"launches\": %d, \"same_address\": %d}\n",
           direct[batches / 2], looked_up[batches / 2], added[batches / 2], added[batches / 4], added[batches * 3 / 4],
           batches * BATCH, (void *)cu.cuLaunchKernel == address);
}

static double alloc_and_free(CUresult (*take)(CUdeviceptr *, size_t), CUresult (*give)(CUdeviceptr))
{
    CUdeviceptr p;
    const int64_t from = now_ns();
    const CUresult taken = take(&p, 2 * MIB), given = give(p);
    if (taken != CUDA_SUCCESS || given != CUDA_SUCCESS)
        fail("cuMemAlloc or cuMemFree", taken != CUDA_SUCCESS ? taken : given);
    return (double)(now_ns() - from);
}

void allocs(int count)
{
    enum { MOST = 20000 };
    static double direct[MOST], looked_up[MOST], added[MOST];
    CUresult (*take)(CUdeviceptr *, size_t) = NULL, (*give)(CUdeviceptr) = NULL;
    start(false);
    void *address = hami_elf_find("libcuda.so", "cuMemAlloc_v2");
    memcpy(&take, &address, sizeof take);
    address = hami_elf_find("libcuda.so", "cuMemFree_v2");
    memcpy(&give, &address, sizeof give);
    if (take == NULL || give == NULL)
        fail("no cuMemAlloc_v2 in the driver", 0);
    count = count > MOST ? MOST : count;
    for (int i = 0; i < count; i++) {
        if (i % 2 == 0)
            direct[i] = alloc_and_free(take, give);
        looked_up[i] = alloc_and_free(cu.cuMemAlloc, cu.cuMemFree);
        if (i % 2 != 0)
            direct[i] = alloc_and_free(take, give);
        added[i] = looked_up[i] - direct[i];
    }
    qsort(direct, (size_t)count, sizeof direct[0], by_value);
    qsort(looked_up, (size_t)count, sizeof looked_up[0], by_value);
    qsort(added, (size_t)count, sizeof added[0], by_value);
    printf("{\"direct_ns\": %.1f, \"looked_up_ns\": %.1f, \"added_ns\": %.1f, \"added_p25\": %.1f, \"added_p75\": %.1f, \"count\": %d}\n",
           direct[count / 2], looked_up[count / 2], added[count / 2], added[count / 4], added[count * 3 / 4], count);
}
