/*
 * A CUDA driver program that takes memory and time in every known way, and says what it got.
 *
 * It finds the driver by dlopen and cuGetProcAddress, as the CUDA runtime does, and runs unchanged on a real card, on the
 * simulated driver, with and without the library preloaded. Its kernels are PTX text; times are CLOCK_MONOTONIC. One line
 * of JSON a result on stdout.
 *
 *   probe info                             card, driver, whether lookups are answered by libvgpu
 *   probe init                             how long cuInit took
 *   probe mem ROUTE [CHUNK_MIB]            takes until refused, then frees one and goes on
 *   probe hold MIB SECONDS                 takes so much, says so, keeps it
 *   probe watch SECONDS                    the card's total memory, whenever it is another
 *   probe forks SECONDS                    forks a child that does nothing, says its pid, waits
 *   probe closes SECONDS                   closes all descriptors, opens files of its own, says what was written to them
 *   probe run WORK SECONDS NS [HOST_NS]    runs WORK, kernels of NS; launches by window, of 0.1 s or PROBE_WINDOW_MS
 *   probe threads COUNT SECONDS NS         so many threads that launch kernels of NS, each for 0.1 s, then another in its place
 *   probe full NS                          what a launch of NS takes in a full queue, with a gate before it: not held back by the host
 *   probe pairs NS                         what a pair of events shows of a kernel: alone, with others behind it, waited for
 *   probe queued NS                        what a kernel of NS takes in a full queue, from graphs, which no limit cuts up
 *   probe launches COUNT                   host time of a null launch through a lookup and without, in turn
 *   probe allocs COUNT                     host time of cuMemAlloc + cuMemFree of 2 MiB, likewise
 *   probe symbols FILE                     every name of FILE by dlsym and by cuGetProcAddress with versions and flags
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hami/cuda_abi.h"
#include "intercept/elf.h"

#define MIB ((size_t)1 << 20)

static const char ptx[] =
    ".version 6.4\n.target sm_50\n.address_size 64\n"
    ".visible .entry nothing()\n{\n ret;\n}\n"
    /* Fixed work, not fixed time: a time slice given to another process shows. */
    ".visible .entry spin(.param .u64 rounds)\n{\n"
    " .reg .u64 %n; .reg .f32 %f; .reg .pred %p;\n"
    " ld.param.u64 %n, [rounds];\n mov.f32 %f, 0f3F800000;\n"
    "again:\n"
    " fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n"
    " sub.u64 %n, %n, 1;\n setp.gt.u64 %p, %n, 0;\n @%p bra again;\n"
    " setp.eq.f32 %p, %f, 0f3F8CCCCD;\n @%p trap;\n ret;\n}\n";

#define FUNCTIONS(X)                                                                                                      \
    X(cuInit, (unsigned int))                                                                                             \
    X(cuDriverGetVersion, (int *))                                                                                        \
    X(cuDeviceGet, (CUdevice *, int))                                                                                     \
    X(cuDeviceGetName, (char *, int, CUdevice))                                                                           \
    X(cuDeviceGetUuid, (CUuuid *, CUdevice))                                                                              \
    X(cuDeviceTotalMem, (size_t *, CUdevice))                                                                             \
    X(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                                                  \
    X(cuCtxSetCurrent, (CUcontext))                                                                                       \
    X(cuCtxSynchronize, (void))                                                                                           \
    X(cuCtxSetLimit, (int, size_t))                                                                                       \
    X(cuMemGetInfo, (size_t *, size_t *))                                                                                 \
    X(cuMemAlloc, (CUdeviceptr *, size_t))                                                                                \
    X(cuMemFree, (CUdeviceptr))                                                                                           \
    X(cuMemAllocManaged, (CUdeviceptr *, size_t, unsigned int))                                                           \
    X(cuMemAllocPitch, (CUdeviceptr *, size_t *, size_t, size_t, unsigned int))                                           \
    X(cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                                                                 \
    X(cuMemFreeAsync, (CUdeviceptr, CUstream))                                                                            \
    X(cuMemAllocFromPoolAsync, (CUdeviceptr *, size_t, CUmemoryPool, CUstream))                                           \
    X(cuMemPoolCreate, (CUmemoryPool *, const CUmemPoolProps *))                                                          \
    X(cuMemCreate, (CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long))             \
    X(cuMemRelease, (CUmemGenericAllocationHandle))                                                                       \
    X(cuMemAddressReserve, (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                              \
    X(cuMemMap, (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))                          \
    X(cuMemUnmap, (CUdeviceptr, size_t))                                                                                  \
    X(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle *, void *))                                              \
    X(cuArrayCreate, (CUarray *, const CUDA_ARRAY_DESCRIPTOR *))                                                          \
    X(cuArray3DCreate, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR *))                                                      \
    X(cuArrayDestroy, (CUarray))                                                                                          \
    X(cuMipmappedArrayCreate, (CUmipmappedArray *, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned int))                        \
    X(cuMipmappedArrayDestroy, (CUmipmappedArray))                                                                        \
    X(cuCtxCreate, (CUcontext *, void *, unsigned int, CUdevice))                                                         \
    X(cuCtxDestroy, (CUcontext))                                                                                          \
    X(cuModuleLoadData, (CUmodule *, const void *))                                                                       \
    X(cuModuleUnload, (CUmodule))                                                                                         \
    X(cuLibraryLoadData, (CUlibrary *, const void *, int *, void **, unsigned int, int *, void **, unsigned int))         \
    X(cuLibraryGetModule, (CUmodule *, CUlibrary))                                                                        \
    X(cuLibraryUnload, (CUlibrary))                                                                                       \
    X(cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                                                        \
    X(cuLaunchKernel, (CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,    \
                       unsigned int, CUstream, void **, void **))                                                         \
    X(cuLaunchKernelEx, (const CUlaunchConfig *, CUfunction, void **, void **))                                           \
    X(cuLaunchCooperativeKernel, (CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,       \
                                  unsigned int, unsigned int, CUstream, void **))                                         \
    X(cuStreamCreate, (CUstream *, unsigned int))                                                                         \
    X(cuStreamSynchronize, (CUstream))                                                                                    \
    X(cuStreamDestroy, (CUstream))                                                                                        \
    X(cuStreamBeginCapture, (CUstream, int))                                                                              \
    X(cuStreamEndCapture, (CUstream, CUgraph *))                                                                          \
    X(cuGraphCreate, (CUgraph *, unsigned int))                                                                           \
    X(cuGraphAddMemAllocNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUDA_MEM_ALLOC_NODE_PARAMS *))        \
    X(cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                                          \
    X(cuGraphLaunch, (CUgraphExec, CUstream))                                                                             \
    X(cuGraphUpload, (CUgraphExec, CUstream))                                                                             \
    X(cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                                                    \
    X(cuMemcpyDtoDAsync, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                                                    \
    X(cuEventCreate, (CUevent *, unsigned int))                                                                           \
    X(cuEventRecord, (CUevent, CUstream))                                                                                 \
    X(cuEventSynchronize, (CUevent))                                                                                      \
    X(cuStreamWaitValue32, (CUstream, CUdeviceptr, uint32_t, unsigned int))                                               \
    X(cuMemHostAlloc, (void **, size_t, unsigned int))                                                                    \
    X(cuMemHostGetDevicePointer, (CUdeviceptr *, void *, unsigned int))

#define FIELD(name, arguments) CUresult(*name) arguments;
static struct {
    FUNCTIONS(FIELD)
} cu;

static CUresult (*get_proc_address)(const char *, void **, int, cuuint64_t, int *);
static void *driver;
static CUdevice device;
static CUcontext context;
static CUfunction spin, nothing;
static double rounds_a_ns = 1;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(const char *what, CUresult result)
{
    printf("{\"error\": \"%s\", \"code\": %d}\n", what, result);
    exit(1);
}

#define MUST(name, ...)                          \
    do {                                         \
        const CUresult r_ = cu.name(__VA_ARGS__); \
        if (r_ != CUDA_SUCCESS)                  \
            fail(#name, r_);                     \
    } while (0)

static void resolve(const char *name, void *field, cuuint64_t flags)
{
    void *address = NULL;
    int status = 0;
    get_proc_address(name, &address, 12080, flags, &status); /* the version that fixes these signatures */
    memcpy(field, &address, sizeof address);
}

static void load(bool per_thread)
{
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == NULL)
        fail(dlerror(), 0);
    void *address = dlsym(driver, "cuGetProcAddress_v2");
    memcpy(&get_proc_address, &address, sizeof address);
    if (address == NULL)
        fail("cuGetProcAddress_v2", 0);
#define RESOLVE(name, arguments) resolve(#name, &cu.name, per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : 1);
    FUNCTIONS(RESOLVE)
}

static void launch_spin(int64_t rounds, CUstream stream)
{
    void *params[] = {&rounds};
    const CUresult r = cu.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
    if (r != CUDA_SUCCESS)
        fail("cuLaunchKernel", r);
}

static int64_t rounds_of(double ns)
{
    const int64_t rounds = (int64_t)(ns * rounds_a_ns);
    return rounds < 1 ? 1 : rounds;
}

static void start(bool with_kernels)
{
    MUST(cuInit, 0);
    MUST(cuDeviceGet, &device, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    if (!with_kernels)
        return;
    CUmodule module;
    MUST(cuModuleLoadData, &module, ptx);
    MUST(cuModuleGetFunction, &spin, module, "spin");
    MUST(cuModuleGetFunction, &nothing, module, "nothing");
    const char *fixed = getenv("PROBE_ROUNDS_A_NS");
    if (fixed != NULL) {
        rounds_a_ns = atof(fixed);
        return;
    }
    /* Warm clocks, then time one long kernel. */
    launch_spin(200000, NULL);
    MUST(cuCtxSynchronize);
    const int64_t warm = now_ns();
    while (now_ns() - warm < 300000000) {
        launch_spin(1000000, NULL);
        MUST(cuCtxSynchronize);
    }
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const int64_t from = now_ns();
        launch_spin(20000000, NULL);
        MUST(cuCtxSynchronize);
        const double rate = 2e7 / (double)(now_ns() - from);
        best = rate > best ? rate : best;
    }
    rounds_a_ns = best;
}

/* ---- memory ---- */

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
/* Global data of a module: a .global array of that size. */
static const char *data_image(size_t bytes)
{
    static char text[512];
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

typedef struct {
    const char *name;
    CUresult (*take)(size_t bytes, uint64_t *out);
    CUresult (*give)(uint64_t key); /* NULL: stays */
} route;

static const route routes[] = {
    {"linear", take_linear, free_linear},          {"small", take_small, free_linear},
    {"pitch", take_pitch, free_linear},            {"managed", take_managed, free_linear},
    {"async", take_async, free_async},             {"async_free_sync", take_async, free_linear},
    {"own_pool", take_own_pool, free_async},       {"graph_node", take_graph_node, free_linear},
    {"captured", take_captured, free_linear},      {"vmm", take_vmm, free_vmm},
    {"vmm_mapped", take_vmm_mapped, free_vmm_mapped}, {"vmm_retained", take_vmm_retained, free_vmm},
    {"array", take_array, free_array},             {"array3d", take_array3d, free_array},
    {"mipmap", take_mipmap, free_mipmap},          {"context", take_context, free_context},
    {"module", take_module, free_module},          {"library", take_library, free_library},
    {"heap", take_heap, NULL},
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

static const char *uuid(void)
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
static long long nvml_bytes(void)
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
        if (init() != 0 || get(uuid(), &card) != 0)
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
static const char *driver_version(void)
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

static void memory(const char *name, size_t chunk)
{
    enum { MOST = 4096 };
    static uint64_t keys[MOST];
    static const route *from[MOST];
    int count = 0, again = 0, order[64];
    CUresult last = CUDA_SUCCESS;
    start(true);
    MUST(cuStreamCreate, &side, 1);
    mapped_bytes = chunk;
    int kinds = 0;
    for (int i = 0; i < ROUTES; i++) {
        if (strcmp(name, routes[i].name) == 0 || (strcmp(name, "mixed") == 0 && strcmp(routes[i].name, "heap") != 0 &&
                                                  strcmp(routes[i].name, "context") != 0))
            order[kinds++] = i;
    }
    if (kinds == 0)
        fail("no such route", 0);
    size_t free_before, total, free_after;
    MUST(cuMemGetInfo, &free_before, &total);
    int refused = 0;
    const size_t ceiling = total > 48 * 1024 * MIB ? 12 * 1024 * MIB : total * 3; /* without a limit: enough is enough */
    size_t taken = 0;
    while (count < MOST && refused < kinds && taken < ceiling) {
        const route *r = &routes[order[(count + refused) % kinds]];
        last = r->take(chunk, &keys[count]);
        if (last == CUDA_SUCCESS) {
            from[count++] = r;
            taken += chunk;
            refused = 0;
        } else {
            refused++;
        }
    }
    const long long nvml = nvml_bytes();
    MUST(cuMemGetInfo, &free_after, &total);
    /* The program goes on: what is freed can be had again. */
    CUresult freed = CUDA_SUCCESS, retaken = CUDA_SUCCESS;
    if (count > 0 && from[count - 1]->give != NULL) {
        freed = from[count - 1]->give(keys[count - 1]);
        retaken = from[count - 1]->take == take_small ? cu.cuMemAlloc((CUdeviceptr *)&keys[count - 1], 65536)
                                                      : from[count - 1]->take(chunk, &keys[count - 1]);
        again = retaken == CUDA_SUCCESS;
    }
    printf("{\"route\": \"%s\", \"chunk_mib\": %zu, \"taken_mib\": %zu, \"refused_with\": %d, \"nvml_mib\": %.1f, "
           "\"total_mib\": %zu, \"free_mib\": %zu, \"freed\": %d, \"retaken\": %d, \"again\": %d}\n",
           name, chunk / MIB, taken / MIB, last, nvml < 0 ? -1.0 : (double)nvml / (double)MIB, total / MIB, free_after / MIB,
           freed, retaken, again);
}

/* ---- time ---- */

static CUgraphExec graph_of(int nodes, int64_t rounds, CUstream stream)
{
    CUgraph graph;
    CUgraphExec exec;
    MUST(cuStreamBeginCapture, stream, 2);
    for (int i = 0; i < nodes; i++)
        launch_spin(rounds, stream);
    MUST(cuStreamEndCapture, stream, &graph);
    MUST(cuGraphInstantiateWithFlags, &exec, graph, 0);
    return exec;
}

static void busy_host(int64_t ns)
{
    const int64_t until = now_ns() + ns;
    while (now_ns() < until) {
    }
}

enum { WINDOWS = 6000, LATENCIES = 200000 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run(const char *work, double seconds, int64_t ns, int64_t host_ns)
{
    const bool per_thread = strcmp(work, "ptds") == 0;
    if (per_thread)
        load(true);
    start(true);
    CUstream stream = NULL;
    if (!per_thread)
        MUST(cuStreamCreate, &stream, 1);
    const int64_t rounds = rounds_of((double)ns);
    static const int64_t mixed_ns[] = {2000, 8000, 20000};
    CUgraphExec exec = NULL;
    CUdeviceptr a = 0, b = 0;
    size_t bytes = 0;
    int nodes = 1;
    if (sscanf(work, "graph%d", &nodes) == 1)
        exec = graph_of(nodes, rounds, stream);
    const bool sets = strcmp(work, "memset") == 0, copies = strcmp(work, "copy") == 0, sync = strcmp(work, "sync") == 0;
    const bool coop = strcmp(work, "coop") == 0, mixed = strcmp(work, "mixed") == 0, ex = strcmp(work, "ex") == 0;
    if (sets || copies) {
        bytes = (size_t)ns; /* NS is bytes here */
        MUST(cuMemAlloc, &a, bytes);
        MUST(cuMemAlloc, &b, bytes);
    }
    /* At most 512 launches are left unfinished: then what was launched is what was done, within a moment. */
    enum { RING = 8 };
    CUevent ring[RING];
    const int64_t unit = nodes * (sets || copies ? 20000 : ns > 1000 ? ns : 1000);
    int64_t batch = 4000000 / unit;
    batch = batch < 1 ? 1 : batch > 64 ? 64 : batch;
    for (int i = 0; i < RING; i++) {
        MUST(cuEventCreate, &ring[i], 2 | 1);
    }
    static long long windows[WINDOWS];
    static double took_us[LATENCIES];
    const char *wish = getenv("PROBE_WINDOW_MS");
    const int64_t window_ns = 1000000 * (wish == NULL ? 100 : atoll(wish));
    const int64_t from = now_ns(), until = from + (int64_t)(seconds * 1e9);
    long long launches = 0;
    int64_t now = from;
    for (int64_t i = 0; now < until; i++) {
        CUresult r = CUDA_SUCCESS;
        int64_t mine = mixed ? rounds_of((double)mixed_ns[i % 3]) : rounds;
        void *params[] = {&mine};
        if (exec != NULL)
            r = cu.cuGraphLaunch(exec, stream);
        else if (sets)
            r = cu.cuMemsetD8Async(a, 1, bytes, stream);
        else if (copies)
            r = cu.cuMemcpyDtoDAsync(a, b, bytes, stream);
        else if (coop)
            r = cu.cuLaunchCooperativeKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, params);
        else if (ex)
            r = cu.cuLaunchKernelEx(&(CUlaunchConfig){1, 1, 1, 32, 1, 1, 0, stream, NULL, 0}, spin, params, NULL);
        else
            r = cu.cuLaunchKernel(spin, mixed ? (unsigned int)(1 + i % 3) : 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
        if (r != CUDA_SUCCESS)
            fail(work, r);
        launches++;
        if (sync) {
            MUST(cuStreamSynchronize, stream);
            took_us[(launches - 1) % LATENCIES] = (double)(now_ns() - now) / 1e3;
        }
        if (host_ns > 0)
            busy_host(host_ns);
        if (launches % batch == 0) {
            CUevent e = ring[launches / batch % RING];
            if (launches / batch >= RING)
                MUST(cuEventSynchronize, e);
            MUST(cuEventRecord, e, stream);
        }
        now = now_ns();
        const int64_t window = (now - from) / window_ns;
        if (window < WINDOWS)
            windows[window]++;
    }
    MUST(cuStreamSynchronize, stream);
    const double took = (double)(now_ns() - from) / 1e9;
    printf("{\"work\": \"%s\", \"ns\": %lld, \"host_ns\": %lld, \"seconds\": %.4f, \"launches\": %lld, \"rate\": %.3f, "
           "\"rounds_a_ns\": %.6f, \"begun_ns\": %lld, ",
           work, (long long)ns, (long long)host_ns, took, launches, (double)launches / took, rounds_a_ns, (long long)from);
    const size_t kept = (size_t)(launches < LATENCIES ? launches : LATENCIES);
    qsort(took_us, kept, sizeof took_us[0], by_value);
    if (sync && kept > 0)
        printf("\"p50_us\": %.1f, \"p99_us\": %.1f, ", took_us[kept / 2], took_us[kept * 99 / 100]);
    printf("\"%s\": [", window_ns == 100000000 ? "tenths" : "windows");
    for (int i = 0; i < WINDOWS && i < (int)(seconds * 1e9 / (double)window_ns); i++)
        printf("%s%lld", i ? "," : "", windows[i]);
    printf("]}\n");
}

/* ---- threads that come and go ---- */

typedef struct {
    int64_t rounds, until;
    long long launches;
} worker;

static void *work_for_a_while(void *argument)
{
    worker *w = argument;
    CUstream stream;
    const int64_t leave = now_ns() + 100000000;
    MUST(cuCtxSetCurrent, context);
    MUST(cuStreamCreate, &stream, 1);
    for (w->launches = 0; now_ns() < leave && now_ns() < w->until; w->launches++) {
        launch_spin(w->rounds, stream);
        if (w->launches % 32 == 31)
            MUST(cuStreamSynchronize, stream);
    }
    MUST(cuStreamSynchronize, stream);
    MUST(cuStreamDestroy, stream);
    return NULL;
}

static void threads(int count, double seconds, int64_t ns)
{
    enum { MOST = 64 };
    pthread_t running[MOST];
    worker workers[MOST];
    long long launches = 0;
    int started = 0;
    start(true);
    count = count > MOST ? MOST : count;
    const int64_t from = now_ns(), until = from + (int64_t)(seconds * 1e9);
    for (; now_ns() < until; started += count) {
        for (int i = 0; i < count; i++) {
            workers[i] = (worker){.rounds = rounds_of((double)ns), .until = until};
            if (pthread_create(&running[i], NULL, work_for_a_while, &workers[i]) != 0)
                fail("pthread_create", 0);
        }
        for (int i = 0; i < count; i++) {
            pthread_join(running[i], NULL);
            launches += workers[i].launches;
        }
    }
    printf("{\"threads\": %d, \"launches\": %lld, \"rate\": %.1f}\n", started, launches,
           (double)launches / ((double)(now_ns() - from) / 1e9));
}

/* Both ways in turn, in one process: the driver's own entry point, read from its symbol table, and what lookups give. */
static void launches(long count)
{
    enum { BATCH = 200, MOST = 20000 };
    static double direct[MOST], looked_up[MOST], added[MOST];
    CUresult (*entry)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                      CUstream, void **, void **) = NULL;
    int batches = 0;
    start(true);
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
                (ours ? cu.cuLaunchKernel : entry)(nothing, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
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

static void allocs(int count)
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

/* The least that so many launches take once a gate before them opens. */
static double least_behind_gate(int count, int64_t rounds, CUstream stream, uint32_t *word, CUdeviceptr word_device)
{
    static uint32_t ticket;
    double least = 0;
    for (int i = 0; i < 12; i++) {
        MUST(cuStreamWaitValue32, stream, word_device, ++ticket, 0);
        for (int j = 0; j < count; j++)
            launch_spin(rounds, stream);
        const int64_t from = now_ns();
        __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
        MUST(cuStreamSynchronize, stream);
        const double took = (double)(now_ns() - from);
        least = i < 2 || took < least ? took : least;
    }
    return least;
}

static void full(int64_t ns)
{
    CUstream stream;
    void *word = NULL;
    CUdeviceptr word_device;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    launch_spin(1, stream); /* loaded: a gate around a first launch would wait for ever */
    MUST(cuStreamSynchronize, stream);
    MUST(cuMemHostAlloc, &word, 64, 2);
    MUST(cuMemHostGetDevicePointer, &word_device, word, 0);
    memset(word, 0, 64);
    enum { FEW = 200, MANY = 800 };
    const int64_t rounds = rounds_of((double)ns);
    const double few = least_behind_gate(FEW, rounds, stream, word, word_device);
    const double many = least_behind_gate(MANY, rounds, stream, word, word_device);
    printf("{\"ns\": %lld, \"full_ns\": %.1f}\n", (long long)ns, (many - few) / (MANY - FEW));
}

typedef enum { ALONE, BEHIND, HELD } around;

/* Gate, event, kernel, event: ns between the events. */
static double pair(around how, int64_t rounds, CUstream stream, CUevent *events, uint32_t *word, CUdeviceptr word_device, uint32_t ticket)
{
    float ms = 0;
    CUresult (*elapsed)(float *, CUevent, CUevent) = NULL;
    void *address = dlsym(driver, "cuEventElapsedTime");
    memcpy(&elapsed, &address, sizeof elapsed);
    for (int i = 0; how != ALONE && i < 48; i++)
        launch_spin(rounds, stream); /* a stream at work */
    MUST(cuStreamWaitValue32, stream, word_device, ticket, 0);
    MUST(cuEventRecord, events[0], stream);
    launch_spin(rounds, stream);
    MUST(cuEventRecord, events[1], stream);
    for (int i = 0; how == BEHIND && i < 16; i++)
        launch_spin(rounds, stream);
    __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
    MUST(cuEventSynchronize, events[1]);
    MUST(cuStreamSynchronize, stream);
    elapsed(&ms, events[0], events[1]);
    return (double)ms * 1e6;
}

static void pairs(int64_t ns)
{
    enum { TIMES = 300 };
    static const char *const names[] = {"alone", "behind", "held"};
    double values[TIMES];
    CUstream stream;
    CUevent events[2];
    void *word = NULL;
    CUdeviceptr word_device;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuEventCreate, &events[0], 0);
    MUST(cuEventCreate, &events[1], 0);
    MUST(cuMemHostAlloc, &word, 64, 2);
    MUST(cuMemHostGetDevicePointer, &word_device, word, 0);
    memset(word, 0, 64);
    launch_spin(1, stream);
    MUST(cuStreamSynchronize, stream);
    uint32_t ticket = 0;
    printf("{\"ns\": %lld", (long long)ns);
    for (around how = ALONE; how <= HELD; how++) {
        double sum = 0;
        for (int i = 0; i < TIMES; i++)
            sum += values[i] = pair(how, rounds_of((double)ns), stream, events, word, word_device, ++ticket);
        qsort(values, TIMES, sizeof values[0], by_value);
        printf(", \"%s\": {\"p5\": %.0f, \"p50\": %.0f, \"p95\": %.0f, \"mean\": %.0f}", names[how], values[TIMES / 20],
               values[TIMES / 2], values[TIMES * 19 / 20], sum / (double)TIMES);
    }
    printf("}\n");
}

/* The least that a graph of `nodes` takes, of several: launched in one piece, and what is least was neither disturbed nor waited for. */
static double least_of(int nodes, int64_t ns, CUstream stream)
{
    CUgraphExec exec = graph_of(nodes, rounds_of((double)ns), stream);
    double least = 0;
    for (int i = 0; i < 8; i++) {
        usleep(100000); /* a limit's budget has filled up again */
        const int64_t from = now_ns();
        MUST(cuGraphLaunch, exec, stream);
        MUST(cuStreamSynchronize, stream);
        const double took = (double)(now_ns() - from);
        least = i < 2 || took < least ? took : least; /* the first two load and wake */
    }
    return least;
}

static void queued(int64_t ns)
{
    CUstream stream;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    const int nodes = ns < 5000 ? 400 : ns < 2000000 ? (int)(2000000 / ns) : 1;
    const double each = (least_of(2 * nodes, ns, stream) - least_of(nodes, ns, stream)) / nodes;
    printf("{\"ns\": %lld, \"queued_ns\": %.1f, \"nodes\": %d, \"rounds_a_ns\": %.6f}\n", (long long)ns, each, nodes, rounds_a_ns);
}

/* ---- what may happen to a process ---- */

static void watch(double seconds)
{
    size_t left = 0, total = 0, before = 0;
    start(false);
    for (const int64_t until = now_ns() + (int64_t)(seconds * 1e9); now_ns() < until; usleep(5000)) {
        MUST(cuMemGetInfo, &left, &total);
        if (total != before) {
            printf("{\"total_mib\": %zu}\n", total / MIB);
            fflush(stdout);
        }
        before = total;
    }
}

static void closes(int seconds)
{
    enum { FIRST = 3, BEYOND = 600 };
    start(false);
    for (int fd = FIRST; fd < BEYOND; fd++)
        close(fd);
    FILE *own = tmpfile();
    for (int fd = FIRST; fd < BEYOND; fd++)
        dup2(fileno(own), fd);
    sleep((unsigned int)seconds / 2);
    struct stat status;
    const long long written = fstat(FIRST, &status) == 0 ? (long long)status.st_size : -1;
    for (int fd = FIRST; fd < BEYOND; fd++)
        close(fd);
    sleep((unsigned int)seconds - (unsigned int)seconds / 2);
    printf("{\"foreign_bytes\": %lld}\n", written);
}

/* ---- lookups ---- */

static void symbols(const char *path)
{
    static void *exported[4096];
    char name[128];
    int names = 0, there = 0, asked = 0, answered = 0, hidden = 0, shown = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        fail(path, 0);
    while (fscanf(file, "%127s", name) == 1 && names < 4096) {
        exported[names] = dlsym(driver, name);
        there += exported[names] != NULL;
        names++;
    }
    rewind(file);
    static const int versions[] = {2000, 3020, 4000, 7000, 10000, 11000, 11030, 12000, 12040, 12080, 13000};
    while (fscanf(file, "%127s", name) == 1) {
        char *suffix = strstr(name, "_v");
        if (suffix != NULL || strstr(name, "_pt") != NULL || strncmp(name, "cu", 2) != 0)
            continue;
        for (size_t v = 0; v < sizeof versions / sizeof versions[0]; v++) {
            for (cuuint64_t flags = 0; flags <= 2; flags++) {
                void *address = NULL;
                int status = 0;
                asked++;
                if (get_proc_address(name, &address, versions[v], flags, &status) != CUDA_SUCCESS || address == NULL)
                    continue;
                answered++;
                bool known = false;
                for (int i = 0; i < names && !known; i++)
                    known = exported[i] == address;
                hidden += !known;
                if (!known && shown++ < 40)
                    fprintf(stderr, "not exported: %s version %d flags %d\n", name, versions[v], (int)flags);
            }
        }
    }
    fclose(file);
    printf("{\"names\": %d, \"exported\": %d, \"lookups\": %d, \"answered\": %d, \"not_exported_addresses\": %d}\n", names, there,
           asked, answered, hidden);
}

int main(int count, char **words)
{
    const char *what = count > 1 ? words[1] : "";
    load(false);
    if (strcmp(what, "info") == 0) {
        char name[128];
        int version = 0;
        size_t total = 0, left = 0;
        start(false);
        MUST(cuDeviceGetName, name, sizeof name, device);
        MUST(cuDriverGetVersion, &version);
        MUST(cuMemGetInfo, &left, &total);
        printf("{\"card\": \"%s\", \"uuid\": \"%s\", \"cuda\": %d, \"driver\": \"%s\", \"total_mib\": %zu, \"free_mib\": %zu, \"nvml_mib\": %.1f, "
               "\"hooked\": %d}\n",
               name, uuid(), version, driver_version(), total / MIB, left / MIB, (double)nvml_bytes() / (double)MIB,
               hami_elf_find("libcuda.so", "cuLaunchKernel") != (void *)cu.cuLaunchKernel);
    } else if (strcmp(what, "init") == 0) {
        const int64_t from = now_ns();
        MUST(cuInit, 0);
        printf("{\"init_ms\": %.3f}\n", (double)(now_ns() - from) / 1e6);
    } else if (strcmp(what, "mem") == 0 && count > 2) {
        memory(words[2], (size_t)(count > 3 ? atol(words[3]) : 256) * MIB);
    } else if (strcmp(what, "hold") == 0 && count > 3) {
        CUdeviceptr held;
        start(false);
        MUST(cuMemAlloc, &held, (size_t)atol(words[2]) * MIB);
        printf("{\"held_mib\": %s}\n", words[2]);
        fflush(stdout);
        sleep((unsigned int)atoi(words[3]));
    } else if (strcmp(what, "watch") == 0 && count > 2) {
        watch(atof(words[2]));
    } else if (strcmp(what, "forks") == 0 && count > 2) {
        start(false);
        const pid_t child = fork();
        if (child == 0) {
            for (;;)
                pause();
        }
        printf("{\"child\": %d}\n", (int)child);
        fflush(stdout);
        sleep((unsigned int)atoi(words[2]));
    } else if (strcmp(what, "closes") == 0 && count > 2) {
        closes(atoi(words[2]));
    } else if (strcmp(what, "run") == 0 && count > 4) {
        run(words[2], atof(words[3]), atoll(words[4]), count > 5 ? atoll(words[5]) : 0);
    } else if (strcmp(what, "threads") == 0 && count > 4) {
        threads(atoi(words[2]), atof(words[3]), atoll(words[4]));
    } else if (strcmp(what, "full") == 0 && count > 2) {
        full(atoll(words[2]));
    } else if (strcmp(what, "pairs") == 0 && count > 2) {
        pairs(atoll(words[2]));
    } else if (strcmp(what, "queued") == 0 && count > 2) {
        queued(atoll(words[2]));
    } else if (strcmp(what, "launches") == 0 && count > 2) {
        launches(atol(words[2]));
    } else if (strcmp(what, "allocs") == 0 && count > 2) {
        allocs(atoi(words[2]));
    } else if (strcmp(what, "symbols") == 0 && count > 2) {
        symbols(words[2]);
    } else {
        fprintf(stderr, "see the head of probe.c\n");
        return 2;
    }
    return 0;
}
