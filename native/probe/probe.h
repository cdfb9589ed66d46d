/*
 * A CUDA driver program that takes memory and time in every known way, and says what it got.
 *
 * It finds the driver by dlopen and cuGetProcAddress, as the CUDA runtime does, and runs unchanged on a real card, on the
 * simulated driver, with and without the library preloaded. Its kernels are PTX text; times are CLOCK_MONOTONIC. One line
 * of JSON a result on stdout. main.c lists what can be asked of it, and in which file that is. Built from all files of this
 * folder and src/intercept/elf.c.
 */
#ifndef HAMI_PROBE_H
#define HAMI_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hami/cuda_abi.h"

#define MIB ((size_t)1 << 20)

#define FUNCTIONS(X)                                                                                                      \
    X(cuInit, (unsigned int))                                                                                             \
    X(cuDriverGetVersion, (int *))                                                                                        \
    X(cuDeviceGet, (CUdevice *, int))                                                                                     \
    X(cuDeviceGetCount, (int *))                                                                                          \
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
    X(cuStreamQuery, (CUstream))                                                                                          \
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
typedef struct {
    FUNCTIONS(FIELD)
} probe_driver;

/* ---- driver.c: what every measurement stands on ---- */

extern probe_driver cu; /* as cuGetProcAddress gave them */
extern CUresult (*get_proc_address)(const char *, void **, int, cuuint64_t, int *);
extern void *driver; /* of dlopen */
extern CUdevice device;
extern CUcontext context;
extern CUfunction spin, nothing;
extern double rounds_a_ns;
extern const char ptx[];

/* Says so, and ends the program with 1. */
__attribute__((noreturn)) void fail(const char *what, CUresult result);

#define MUST(name, ...)                          \
    do {                                         \
        const CUresult r_ = cu.name(__VA_ARGS__); \
        if (r_ != CUDA_SUCCESS)                  \
            fail(#name, r_);                     \
    } while (0)

int64_t now_ns(void);
/* What many processes do at once: waits for PROBE_BEGIN_AT, s of CLOCK_MONOTONIC; or, for PROBE_BEGIN_WHEN_TOLD, says `ready` and waits for a line. */
void begin_together(void);

/*
 * Seconds for which threads of this program were ready to run and had no processor, those that have ended only if they said so at their end; 0 where
 * the kernel does not say. Who has less of the card than he may is not held back by the library for so long.
 */
double kept_waiting(void);
void thread_ends(void);

int by_value(const void *a, const void *b); /* of doubles, for qsort */

/* Finds the driver. `per_thread`: in the variants for default streams of each thread. */
void load(bool per_thread);

/* cuInit and the primary context of the first card; `with_kernels`: and kernels of known length. */
void start(bool with_kernels);

/* Rounds of `spin` that take so long, at least one. */
int64_t rounds_of(double ns);
void launch_spin(int64_t rounds, CUstream stream);
CUgraphExec graph_of(int nodes, int64_t rounds, CUstream stream);

/* ---- routes.c: ways to take memory ---- */

typedef struct {
    const char *name;
    CUresult (*take)(size_t bytes, uint64_t *out);
    CUresult (*give)(uint64_t key); /* NULL: stays */
    bool alone;                     /* has no place in a mixture */
} route;

extern const route routes[];
extern const int route_count;

/* A stream for them. `chunk`: how much will be taken at a time. */
void routes_start(size_t chunk);

/* PTX of a module with a .global array of that size. */
const char *data_image(size_t bytes);

/* Of route `r`, a little again. */
CUresult retake(const route *r, size_t chunk, uint64_t *out);

/* ---- card.c: the card as the driver and NVML name it ---- */

const char *card_uuid(void);
long long nvml_bytes(void);       /* of this process; -1 where NVML does not say */
const char *driver_version(void); /* empty where NVML does not say */

/* ---- what can be asked: each starts the driver by itself and prints its answer ---- */

void tell_card(void);                                                                     /* card.c */
void tell_nvml(void);                                                                /* card.c */
void time_init(void);                                                                     /* card.c */
void memory(const char *route_name, size_t chunk);                                   /* memory.c */
void hold(size_t mib, double seconds);                                               /* memory.c */
void module(const char *kind, size_t mib, double seconds);                           /* module.c */
void lend(const char *kind, size_t mib, const char *after, double seconds);          /* lend.c */
void borrow(const char *token, double seconds, double then);                         /* lend.c */
void run(const char *work, double seconds, int64_t ns, int64_t host_ns);             /* run.c */
void returns(int64_t ns, int times, int64_t work_ms, int64_t rest_ms);               /* returns.c */
void threads(int count, double seconds, int64_t ns);                                 /* threads.c */
void cards(double seconds, int64_t ns, bool unseen);                                 /* cards.c */
void streams(int threads, int each, double seconds, int64_t ns, unsigned int blocks, int64_t phase_ns); /* streams.c */

/* Launches that were made at `now` of a run that began at `from`; and what all threads counted, for the line of JSON. */
void count_launches(int64_t from, int64_t now, int launches); /* tenths.c */
void print_tenths(double seconds);                            /* tenths.c */
void strangers(int count, double seconds, int64_t ns);                                /* strangers.c */
void storm(int threads, long rounds, uint64_t seed);                                 /* storm.c */
void kills(int count);                                                               /* kills.c */
void defects(void);                                                                  /* defects.c */
void full(int64_t ns);                                                               /* queue.c */
void share(int64_t ns, double seconds, int64_t host_ns);                              /* share.c */
void pairs(int64_t ns);                                                              /* queue.c */
void queued(int64_t ns);                                                             /* queue.c */
void launches(long count, int kernels);                                                           /* added.c */
void allocs(int count);                                                              /* added.c */
void watch(double seconds);                                                          /* life.c */
void forks(int seconds);                                                             /* life.c */
void closes(int seconds);                                                            /* life.c */
void symbols(const char *path);                                                      /* symbols.c */

#endif
