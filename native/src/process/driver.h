/* What the library itself asks of the driver and NVML, past all hooks. */
#ifndef HAMI_DRIVER_H
#define HAMI_DRIVER_H

#include <stdbool.h>

#include "hami/cuda_abi.h"
#include "hooks.h"

/* Calls the driver's function behind a hook; a driver that lacks it says so instead of crashing. */
#define BEHIND(name, ...) (hami_behind.name != NULL ? hami_behind.name(__VA_ARGS__) : CUDA_ERROR_NOT_SUPPORTED)

#define HAMI_USES(X)                                                                                       \
    X(cuDeviceGetCount, (int *count))                                                                      \
    X(cuDeviceGet, (CUdevice * out, int index))                                                            \
    X(cuDeviceGetUuid, (CUuuid * out, CUdevice device))                                                    \
    X(cuDeviceGetUuid_v2, (CUuuid * out, CUdevice device))                                                 \
    X(cuDevicePrimaryCtxGetState, (CUdevice device, unsigned int *flags, int *active))                     \
    X(cuCtxGetDevice, (CUdevice * out))                                                                    \
    X(cuCtxGetCurrent, (CUcontext * out))                                                                  \
    X(cuCtxFromGreenCtx, (CUcontext * out, CUgreenCtx green))                                              \
    X(cuCtxSetCurrent, (CUcontext context))                                                                \
    X(cuCtxGetLimit, (size_t * value, int limit))                                                          \
    X(cuStreamIsCapturing, (CUstream stream, int *status))                                                 \
    X(cuStreamCreate, (CUstream * out, unsigned int flags))                                                \
    X(cuStreamDestroy_v2, (CUstream stream))                                                               \
    X(cuStreamSynchronize, (CUstream stream))                                                              \
    X(cuStreamQuery, (CUstream stream))                                                                    \
    X(cuStreamGetCtx, (CUstream stream, CUcontext * out))                                                  \
    X(cuStreamWaitValue32_v2, (CUstream stream, CUdeviceptr address, uint32_t value, unsigned int flags))  \
    X(cuThreadExchangeStreamCaptureMode, (int *mode))                                                      \
    X(cuEventCreate, (CUevent * out, unsigned int flags))                                                  \
    X(cuEventDestroy_v2, (CUevent event))                                                                  \
    X(cuEventRecord, (CUevent event, CUstream stream))                                                     \
    X(cuEventQuery, (CUevent event))                                                                       \
    X(cuEventElapsedTime, (float *ms, CUevent start, CUevent end))                                         \
    X(cuMemHostAlloc, (void **out, size_t bytes, unsigned int flags))                                      \
    X(cuMemHostGetDevicePointer_v2, (CUdeviceptr * out, void *host, unsigned int flags))                   \
    X(cuModuleGetFunction, (CUfunction * out, CUmodule module, const char *name))                          \
    X(cuModuleGetFunctionCount, (unsigned int *count, CUmodule module))                                    \
    X(cuLibraryGetKernelCount, (unsigned int *count, CUlibrary library))                                   \
    X(cuKernelGetLibrary, (CUlibrary * out, CUkernel kernel))                                              \
    X(cuFuncGetAttribute, (int *out, int attribute, CUfunction function))                                  \
    X(cuFuncIsLoaded, (int *state, CUfunction function))                                                   \
    X(cuKernelGetAttribute, (int *out, int attribute, CUkernel kernel, CUdevice device))                   \
    X(cuGraphKernelNodeGetParams_v2, (CUgraphNode node, void *params))                                     \
    X(cuDeviceGetAttribute, (int *out, int attribute, CUdevice device))                                    \
    X(cuPointerGetAttribute, (void *value, int attribute, CUdeviceptr address))                            \
    X(cuMemGetAddressRange_v2, (CUdeviceptr * base, size_t *bytes, CUdeviceptr address))                   \
    X(cuMemGetAllocationPropertiesFromHandle, (CUmemAllocationProp * out, CUmemGenericAllocationHandle handle)) \
    X(cuDeviceGetMemPool, (CUmemoryPool * out, CUdevice device))                                           \
    X(cuDeviceGetDefaultMemPool, (CUmemoryPool * out, CUdevice device))                                    \
    X(cuDeviceSetMemPool, (CUdevice device, CUmemoryPool pool))                                            \
    X(cuMemPoolSetAttribute, (CUmemoryPool pool, int attribute, void *value))                              \
    X(cuStreamGetDevice, (CUstream stream, CUdevice * out))                                                \
    X(cuMemPoolGetAttribute, (CUmemoryPool pool, int attribute, void *value))                              \
    X(cuDeviceGetGraphMemAttribute, (CUdevice device, int attribute, void *value))                         \
    X(cuArrayGetMemoryRequirements, (CUDA_ARRAY_MEMORY_REQUIREMENTS * out, CUarray array, CUdevice device)) \
    X(cuMipmappedArrayGetMemoryRequirements,                                                               \
      (CUDA_ARRAY_MEMORY_REQUIREMENTS * out, CUmipmappedArray array, CUdevice device))                     \
    X(cuGraphGetNodes, (CUgraph graph, CUgraphNode *nodes, size_t *count))                                 \
    X(cuGraphNodeGetType, (CUgraphNode node, int *type))                                                   \
    X(cuGraphMemAllocNodeGetParams, (CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS * out))                  \
    X(cuGraphChildGraphNodeGetGraph, (CUgraphNode node, CUgraph * out))

#define HAMI_NVML_USES(X)                                                 \
    X(nvmlInit_v2, (void))                                                \
    X(nvmlDeviceGetHandleByUUID, (const char *uuid, nvmlDevice_t *out))   \
    X(nvmlDeviceGetUUID, (nvmlDevice_t card, char *uuid, unsigned int size))

#define HAMI_USE_FIELD(name, signature) CUresult(*name) signature;

typedef struct {
    HAMI_USES(HAMI_USE_FIELD)
    HAMI_NVML_USES(HAMI_USE_FIELD)
} hami_uses;

extern hami_uses hami_use; /* NULL where this driver has none */

#define USE(name, ...) (hami_use.name != NULL ? hami_use.name(__VA_ARGS__) : CUDA_ERROR_NOT_SUPPORTED)

bool hami_uses_load(void);      /* loads the driver and fills the table; false: no driver */
bool hami_nvml_uses_load(void); /* the same for NVML, and initialises it */

#endif
