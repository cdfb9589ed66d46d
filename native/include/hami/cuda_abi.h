/*
 * The part of the CUDA driver's binary interface that the library and the simulated driver speak.
 *
 * Names, numbers and layouts are those of the public driver API, written from its documentation; no CUDA header is
 * needed to build. Only what a hook reads or writes is spelled out, the rest is an opaque pointer.
 */
#ifndef HAMI_CUDA_ABI_H
#define HAMI_CUDA_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_NOT_PERMITTED = 800,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_SYSTEM_NOT_READY = 802,
};

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef unsigned long long CUmemGenericAllocationHandle;
typedef uint64_t cuuint64_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUgreenCtx_st *CUgreenCtx;
typedef struct CUmod_st *CUmodule;
typedef struct CUlib_st *CUlibrary;
typedef struct CUkern_st *CUkernel;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUarray_st *CUarray;
typedef struct CUmipmappedArray_st *CUmipmappedArray;
typedef struct CUmemPoolHandle_st *CUmemoryPool;
typedef struct CUextMemory_st *CUexternalMemory;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct nvmlDevice_st *nvmlDevice_t;

typedef struct {
    unsigned char bytes[16];
} CUuuid;

#define CU_STREAM_LEGACY ((CUstream)0x1)
#define CU_STREAM_PER_THREAD ((CUstream)0x2)
enum { CU_STREAM_NON_BLOCKING = 1 };
enum { CU_EVENT_DISABLE_TIMING = 2 };
enum { CU_STREAM_WAIT_VALUE_GEQ = 0 };
enum { CU_STREAM_CAPTURE_STATUS_NONE = 0 };
enum { CU_STREAM_CAPTURE_MODE_RELAXED = 2 };
enum { CU_MEMHOSTALLOC_PORTABLE = 1, CU_MEMHOSTALLOC_DEVICEMAP = 2 };
enum { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2, CU_MEMORYTYPE_ARRAY = 3, CU_MEMORYTYPE_UNIFIED = 4 };
enum { CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9 };
enum { CU_LIMIT_STACK_SIZE = 0, CU_LIMIT_PRINTF_FIFO_SIZE = 1, CU_LIMIT_MALLOC_HEAP_SIZE = 2 };
enum { CU_MEM_LOCATION_TYPE_DEVICE = 1, CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN = 6 };
enum {
    CU_MEMPOOL_ATTR_RELEASE_THRESHOLD = 4,
    CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT = 5,
    CU_MEMPOOL_ATTR_USED_MEM_CURRENT = 7,
};
enum { CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT = 0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT = 2 };
enum { CU_GRAPH_NODE_TYPE_KERNEL = 0, CU_GRAPH_NODE_TYPE_GRAPH = 4, CU_GRAPH_NODE_TYPE_MEM_ALLOC = 10, CU_GRAPH_NODE_TYPE_CONDITIONAL = 13 };
enum { CUDA_ARRAY3D_SPARSE = 0x40, CUDA_ARRAY3D_DEFERRED_MAPPING = 0x80 };
enum { CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM = 2 };

typedef struct {
    int type;
    int id;
} CUmemLocation;

typedef struct {
    int type;
    int handle_types;
    CUmemLocation location;
    void *win32;
    unsigned char flags[8];
} CUmemAllocationProp;
static_assert(sizeof(CUmemAllocationProp) == 32, "CUmemAllocationProp");
enum { CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR = 1 };
enum { CU_MEM_ALLOCATION_TYPE_MANAGED = 2 };
enum { CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD = 1 };

typedef struct {
    CUmemLocation location;
    int flags;
} CUmemAccessDesc;

typedef struct {
    char reserved[64];
} CUipcMemHandle;

typedef struct {
    int type;
    int handle_types;
    CUmemLocation location;
    void *win32;
    size_t max_bytes; /* 0: the driver's own bound */
    unsigned char reserved[56];
} CUmemPoolProps;
static_assert(sizeof(CUmemPoolProps) == 88, "CUmemPoolProps");

typedef struct {
    size_t width;  /* elements */
    size_t height; /* elements, 0 in one dimension */
    int format;
    unsigned int channels;
} CUDA_ARRAY_DESCRIPTOR;

typedef struct {
    size_t width, height, depth; /* elements, 0 where the dimension is absent */
    int format;
    unsigned int channels;
    unsigned int flags;
} CUDA_ARRAY3D_DESCRIPTOR;

typedef struct {
    size_t bytes;
    size_t alignment;
    unsigned int reserved[4];
} CUDA_ARRAY_MEMORY_REQUIREMENTS;

enum { CU_MEM_OPERATION_TYPE_MAP = 1, CU_MEM_OPERATION_TYPE_UNMAP = 2 };

typedef struct {
    int array_type;
    uint64_t array; /* or mipmap */
    int part_type;
    uint64_t part[4]; /* a box of a level, or a piece of the tail */
    int operation;
    int handle_type;
    CUmemGenericAllocationHandle handle;
    unsigned long long offset;
    unsigned int device_mask;
    unsigned int flags;
    unsigned int reserved[2];
} CUarrayMapInfo;
static_assert(sizeof(CUarrayMapInfo) == 96 && offsetof(CUarrayMapInfo, handle) == 64, "CUarrayMapInfo");

typedef struct {
    int type;
    union {
        int fd;
        void *pair[2];
    } handle;
    unsigned long long bytes;
    unsigned int flags;
    unsigned int reserved[16];
} CUDA_EXTERNAL_MEMORY_HANDLE_DESC;
static_assert(offsetof(CUDA_EXTERNAL_MEMORY_HANDLE_DESC, bytes) == 24, "CUDA_EXTERNAL_MEMORY_HANDLE_DESC");

typedef struct {
    unsigned int gx, gy, gz, bx, by, bz;
    unsigned int shared;
    CUstream stream;
    void *attrs;
    unsigned int attr_count;
} CUlaunchConfig;
static_assert(sizeof(CUlaunchConfig) == 56, "CUlaunchConfig");

typedef struct {
    CUfunction f;
    unsigned int gx, gy, gz, bx, by, bz;
    unsigned int shared;
    CUstream stream;
    void **params;
} CUDA_LAUNCH_PARAMS;

typedef struct {
    CUmemPoolProps pool;
    const void *access;
    size_t access_count;
    size_t bytes;
    CUdeviceptr address;
} CUDA_MEM_ALLOC_NODE_PARAMS;

typedef struct {
    size_t from_x, from_y;
    int from_type;
    const void *from_host;
    CUdeviceptr from;
    CUarray from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_type;
    void *to_host;
    CUdeviceptr to;
    CUarray to_array;
    size_t to_pitch;
    size_t width_bytes, height;
} CUDA_MEMCPY2D;
static_assert(sizeof(CUDA_MEMCPY2D) == 128, "CUDA_MEMCPY2D");

typedef struct {
    size_t from_x, from_y, from_z, from_lod;
    int from_type;
    const void *from_host;
    CUdeviceptr from;
    CUarray from_array;
    void *reserved0;
    size_t from_pitch, from_height;
    size_t to_x, to_y, to_z, to_lod;
    int to_type;
    void *to_host;
    CUdeviceptr to;
    CUarray to_array;
    void *reserved1;
    size_t to_pitch, to_height;
    size_t width_bytes, height, depth;
} CUDA_MEMCPY3D;
static_assert(sizeof(CUDA_MEMCPY3D) == 200, "CUDA_MEMCPY3D");
typedef CUDA_MEMCPY3D CUDA_MEMCPY3D_PEER; /* the contexts of both sides are where that has nothing yet */

enum { CU_MEMCPY_OPERAND_TYPE_POINTER = 1, CU_MEMCPY_OPERAND_TYPE_ARRAY = 2 };

typedef struct {
    int type;
    union {
        struct {
            CUdeviceptr address;
            size_t row_length, layer_height; /* elements */
            CUmemLocation hint;
        } pointer;
        struct {
            CUarray array;
            size_t x, y, z;
        } array;
    } at;
} CUmemcpy3DOperand;

typedef struct {
    CUmemcpy3DOperand from, to;
    size_t width, height, depth; /* elements; of memory bytes */
    int order;
    unsigned int flags;
} CUDA_MEMCPY3D_BATCH_OP;
static_assert(sizeof(CUDA_MEMCPY3D_BATCH_OP) == 112, "CUDA_MEMCPY3D_BATCH_OP");

/* NVML */
enum { NVML_SUCCESS = 0, NVML_ERROR_INSUFFICIENT_SIZE = 7, NVML_ERROR_FUNCTION_NOT_FOUND = 13 };

typedef struct {
    unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used; /* bytes */
} nvmlMemory_v2_t;

typedef struct {
    unsigned int pid;
    unsigned long long bytes; /* all ones: unknown */
} nvmlProcessInfo_v1_t;

typedef struct {
    unsigned int pid;
    unsigned long long bytes;
    unsigned int gpu_instance, compute_instance;
} nvmlProcessInfo_t; /* _v2 and _v3 share this layout */
static_assert(sizeof(nvmlProcessInfo_t) == 24, "nvmlProcessInfo_t");

typedef struct {
    nvmlProcessInfo_t process;
    unsigned long long protected_bytes;
} nvmlProcessDetail_v1_t;

typedef struct {
    unsigned int version, mode, count;
    nvmlProcessDetail_v1_t *entries;
} nvmlProcessDetailList_t;

typedef struct {
    unsigned int pid;
    unsigned long long time_us;
    unsigned int sm, memory, encoder, decoder; /* percent */
} nvmlProcessUtilizationSample_t;
static_assert(sizeof(nvmlProcessUtilizationSample_t) == 32, "nvmlProcessUtilizationSample_t");

typedef struct {
    unsigned long long time_us;
    unsigned int pid, sm, memory, encoder, decoder, jpeg, flow; /* percent */
} nvmlProcessUtilizationInfo_v1_t;
static_assert(sizeof(nvmlProcessUtilizationInfo_v1_t) == 40, "nvmlProcessUtilizationInfo_v1_t");

typedef struct {
    unsigned int version, count;
    unsigned long long since_us;
    nvmlProcessUtilizationInfo_v1_t *entries;
} nvmlProcessesUtilizationInfo_t;

#endif
