/* One thread that launches on two cards in turn. See probe.h. */
#include <stdio.h>
#include <string.h>

#include "intercept/elf.h"
#include "probe.h"

/* The driver's own entry point, read from its symbol table: no hook sees the context change. */
static CUresult (*own_entry(void))(CUcontext)
{
    CUresult (*entry)(CUcontext) = NULL;
    void *address = hami_elf_find("libcuda.so", "cuCtxSetCurrent");
    memcpy(&entry, &address, sizeof entry);
    if (entry == NULL)
        fail("no cuCtxSetCurrent in the driver", 0);
    return entry;
}

/* One launch on the first card, three on the second, and so on. */
void cards(double seconds, int64_t ns, bool unseen)
{
    enum { CARDS = 2 };
    CUcontext contexts[CARDS];
    CUfunction kernels[CARDS];
    long long launches = 0;
    start(true);
    CUresult (*change)(CUcontext) = unseen ? own_entry() : cu.cuCtxSetCurrent;
    for (int i = 0; i < CARDS; i++) {
        CUmodule module;
        MUST(cuDeviceGet, &device, i);
        MUST(cuDevicePrimaryCtxRetain, &contexts[i], device);
        MUST(cuCtxSetCurrent, contexts[i]);
        MUST(cuModuleLoadData, &module, ptx);
        MUST(cuModuleGetFunction, &kernels[i], module, "spin");
    }
    const int64_t from = now_ns(), until = from + (int64_t)(seconds * 1e9);
    for (; now_ns() < until; launches++) {
        const int card = launches % 4 == 0 ? 0 : 1;
        if (change(contexts[card]) != CUDA_SUCCESS)
            fail("cuCtxSetCurrent", 0);
        spin = kernels[card];
        launch_spin(rounds_of((double)ns), NULL);
        if (launches % 32 >= 30)
            MUST(cuCtxSynchronize);
    }
    MUST(cuCtxSynchronize);
    printf("{\"launches\": %lld, \"rate\": %.1f}\n", launches, (double)launches / ((double)(now_ns() - from) / 1e9));
}
