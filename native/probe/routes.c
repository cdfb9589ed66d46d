/* Ways to take memory, and to give it back. See probe.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

static CUmemoryPool own_pool;
static CUstream side;

static CUresult take_linear(size_t bytes, uint64_t *out) { return cu.cuMemAlloc(out == NULL ? NULL : (CUdeviceptr *)out, bytes); }
static CUresult free_linear(uint64_t key) { return cu.cuMemFree(key); }
static CUresult take_managed(size_t bytes, uint64_t *out) { return cu.cuMemAllocManaged((CUdeviceptr *)out, bytes, 1); }
static CUresult take_pitch(size_t bytes, uint64_t *out)
{
    size_t pitch;
    return cu.cuMemAllocPitch((CUdeviceptr *)out, &pitch, 4097, bytes / 4608, 4);
}
static CUresult take_small(size_t bytes, uint64_t *out)
{
    CUresult r = CUDA_SUCCESS;
    for (size_t i = 0; i < bytes / 65536 && r == CUDA_SUCCESS; i++)
        r = cu.cuMemAlloc((CUdeviceptr *)out, 65536);
    return r;
}
static CUresult take_async(size_t bytes, uint64_t *out) { return cu.cuMemAllocAsync((CUdeviceptr *)out, bytes, side); }
static CUresult free_async(uint64_t key)
{
    const CUresult r = cu.cuMemFreeAsync(key, side);
    cu.cuStreamSynchronize(side);
    return r;
}
static CUresult take_own_pool(size_t bytes, uint64_t *out)
{
    if (own_pool == NULL) {
        CUmemPoolProps props = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
        MUST(cuMemPoolCreate, &own_pool, &props);
    }
    return cu.cuMemAllocFromPoolAsync((CUdeviceptr *)out, bytes, own_pool, side);
}
static CUresult take_graph_node(size_t bytes, uint64_t *out)
{
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec exec;
    MUST(cuGraphCreate, &graph, 0);
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.pool = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}}, .bytes = bytes};
    CUresult r = cu.cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params);
    if (r == CUDA_SUCCESS)
        r = cu.cuGraphInstantiateWithFlags(&exec, graph, 0);
    if (r == CUDA_SUCCESS)
        r = cu.cuGraphLaunch(exec, side);
    if (r == CUDA_SUCCESS)
        r = cu.cuStreamSynchronize(side);
    *out = params.address;
    return r;
}
static CUresult take_captured(size_t bytes, uint64_t *out)
{
    CUgraph graph;
    CUgraphExec exec;
    MUST(cuStreamBeginCapture, side, 2);
    const CUresult alloc = cu.cuMemAllocAsync((CUdeviceptr *)out, bytes, side);
    CUresult r = cu.cuStreamEndCapture(side, &graph);
    r = alloc != CUDA_SUCCESS ? alloc : r;
    if (r == CUDA_SUCCESS)
        r = cu.cuGraphInstantiateWithFlags(&exec, graph, 0);
    if (r == CUDA_SUCCESS)
        r = cu.cuGraphLaunch(exec, side);
    return r == CUDA_SUCCESS ? cu.cuStreamSynchronize(side) : r;
}
static CUresult take_vmm(size_t bytes, uint64_t *out)
{
    CUmemAllocationProp prop = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
    return cu.cuMemCreate((CUmemGenericAllocationHandle *)out, bytes, &prop, 0);
}
static CUresult free_vmm(uint64_t key) { return cu.cuMemRelease(key); }
/* Mapped, then the handle given back: the memory stays. */
static CUresult take_vmm_mapped(size_t bytes, uint64_t *out)
{
    uint64_t handle;
    CUresult r = take_vmm(bytes, &handle);
    if (r != CUDA_SUCCESS)
        return r;
    MUST(cuMemAddressReserve, (CUdeviceptr *)out, bytes, 0, 0, 0);
    r = cu.cuMemMap(*out, bytes, 0, handle, 0);
    MUST(cuMemRelease, handle);
    return r;
}
static size_t mapped_bytes;
static CUresult free_vmm_mapped(uint64_t key) { return cu.cuMemUnmap(key, mapped_bytes); }
/* Mapped, released, retained, unmapped: held by the retained handle alone. */
static CUresult take_vmm_retained(size_t bytes, uint64_t *out)
{
    uint64_t address;
    CUresult r = take_vmm_mapped(bytes, &address);
    if (r != CUDA_SUCCESS)
        return r;
    MUST(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle *)out, (void *)(uintptr_t)address);
    MUST(cuMemUnmap, address, bytes);
    return CUDA_SUCCESS;
}
static CUresult take_array(size_t bytes, uint64_t *out)
{
    const CUDA_ARRAY_DESCRIPTOR d = {.width = 8192, .height = bytes / 8192 / 4, .format = 0x20, .channels = 1};
    return cu.cuArrayCreate((CUarray *)out, &d);
}
static CUresult take_array3d(size_t bytes, uint64_t *out)
{
    const CUDA_ARRAY3D_DESCRIPTOR d = {.width = 1024, .height = 1024, .depth = bytes / MIB / 4, .format = 0x20, .channels = 1};
    return cu.cuArray3DCreate((CUarray *)out, &d);
}
static CUresult free_array(uint64_t key) { return cu.cuArrayDestroy((CUarray)(uintptr_t)key); }
static CUresult take_mipmap(size_t bytes, uint64_t *out)
{
    const CUDA_ARRAY3D_DESCRIPTOR d = {.width = 8192, .height = bytes * 3 / 4 / 8192 / 4, .format = 0x20, .channels = 1};
    return cu.cuMipmappedArrayCreate((CUmipmappedArray *)out, &d, 8);
}
static CUresult free_mipmap(uint64_t key) { return cu.cuMipmappedArrayDestroy((CUmipmappedArray)(uintptr_t)key); }
static CUresult take_context(size_t bytes, uint64_t *out)
{
    (void)bytes;
    return cu.cuCtxCreate((CUcontext *)out, NULL, 0, device);
}
static CUresult free_context(uint64_t key)
{
    const CUresult r = cu.cuCtxDestroy((CUcontext)(uintptr_t)key);
    cu.cuCtxSetCurrent(context);
    return r;
}
const char *data_image(size_t bytes)
{
    static __thread char text[512];
    if (getenv("PROBE_SIMULATED") != NULL)
        snprintf(text, sizeof text, "data %zu", bytes / MIB);
    else
        snprintf(text, sizeof text,
                 ".version 6.4\n.target sm_50\n.address_size 64\n.visible .global .align 16 .b8 store[%zu];\n"
                 ".visible .entry touch(.param .u64 where)\n{\n .reg .u64 %%a; mov.u64 %%a, store; st.global.u64 [%%a], %%a;\n ret;\n}\n",
                 bytes);
    return text;
}
static CUresult take_module(size_t bytes, uint64_t *out) { return cu.cuModuleLoadData((CUmodule *)out, data_image(bytes)); }
static CUresult free_module(uint64_t key) { return cu.cuModuleUnload((CUmodule)(uintptr_t)key); }
static CUresult take_library(size_t bytes, uint64_t *out)
{
    CUmodule module;
    CUresult r = cu.cuLibraryLoadData((CUlibrary *)out, data_image(bytes), NULL, NULL, 0, NULL, NULL, 0);
    if (r == CUDA_SUCCESS && getenv("PROBE_SIMULATED") == NULL)
        r = cu.cuLibraryGetModule(&module, (CUlibrary)(uintptr_t)*out); /* lazy: this loads it */
    return r;
}
static CUresult free_library(uint64_t key) { return cu.cuLibraryUnload((CUlibrary)(uintptr_t)key); }
static size_t heap;
static CUresult take_heap(size_t bytes, uint64_t *out)
{
    CUmodule module;
    const CUresult r = cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + bytes);
    *out = 1;
    if (r != CUDA_SUCCESS)
        return r;
    heap += bytes;
    /* The heap is taken when a module that uses it is loaded. */
    if (getenv("PROBE_SIMULATED") == NULL && cu.cuModuleLoadData(&module, ptx) == CUDA_SUCCESS)
        cu.cuModuleUnload(module);
    return r;
}

/* For a program whose default stream is each thread's own. */
static CUresult take_async_ptds(size_t bytes, uint64_t *out)
{
    static CUresult (*take)(CUdeviceptr *, size_t, CUstream);
    void *address = dlsym(driver, "cuMemAllocAsync_ptsz");
    memcpy(&take, &address, sizeof take);
    return take((CUdeviceptr *)out, bytes, NULL);
}
/* Memory of another interface. A real card wants a descriptor that one has exported. */
static CUresult take_external(size_t bytes, uint64_t *out)
{
    static CUresult (*take)(CUexternalMemory *, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *);
    const CUDA_EXTERNAL_MEMORY_HANDLE_DESC desc = {.type = 1, .bytes = bytes};
    void *address = dlsym(driver, "cuImportExternalMemory");
    memcpy(&take, &address, sizeof take);
    return take((CUexternalMemory *)out, &desc);
}
static CUresult free_external(uint64_t key)
{
    static CUresult (*give)(CUexternalMemory);
    void *address = dlsym(driver, "cuDestroyExternalMemory");
    memcpy(&give, &address, sizeof give);
    return give((CUexternalMemory)(uintptr_t)key);
}
static CUresult take_fifo(size_t bytes, uint64_t *out)
{
    static size_t fifo;
    const CUresult r = cu.cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, fifo + bytes);
    fifo += r == CUDA_SUCCESS ? bytes : 0;
    *out = 1;
    return r;
}

const route routes[] = {
    {"linear", take_linear, free_linear, false},
    {"small", take_small, free_linear, false},
    {"pitch", take_pitch, free_linear, false},
    {"managed", take_managed, free_linear, false},
    {"async", take_async, free_async, false},
    {"async_free_sync", take_async, free_linear, false},
    {"own_pool", take_own_pool, free_async, false},
    {"graph_node", take_graph_node, free_linear, false},
    {"captured", take_captured, free_linear, false},
    {"vmm", take_vmm, free_vmm, false},
    {"vmm_mapped", take_vmm_mapped, free_vmm_mapped, false},
    {"vmm_retained", take_vmm_retained, free_vmm, false},
    {"array", take_array, free_array, false},
    {"array3d", take_array3d, free_array, false},
    {"mipmap", take_mipmap, free_mipmap, false},
    {"context", take_context, free_context, true},
    {"module", take_module, free_module, false},
    {"library", take_library, free_library, false},
    {"heap", take_heap, NULL, true},
    {"fifo", take_fifo, NULL, true},
    {"async_ptds", take_async_ptds, free_async, true},
    {"external", take_external, free_external, true},
};
const int route_count = sizeof routes / sizeof routes[0];

void routes_start(size_t chunk)
{
    MUST(cuStreamCreate, &side, 1);
    mapped_bytes = chunk;
}

CUresult retake(const route *r, size_t chunk, uint64_t *out)
{
    return r->take == take_small ? cu.cuMemAlloc((CUdeviceptr *)out, 65536) : r->take(chunk, out);
}
