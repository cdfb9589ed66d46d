/* Copies between contexts, in batches and with hints: each takes as long as the plain one. See fake.h. */
#include "fake.h"

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
CUresult cuStreamSynchronize(CUstream stream);

static size_t solid(const CUDA_MEMCPY3D_BATCH_OP *ops, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += ops[i].width * ops[i].height * ops[i].depth;
    return sum;
}

API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes,
                               CUstream stream)
{
    (void)to_context, (void)from_context;
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

API CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes)
{
    const CUresult result = cuMemcpyPeerAsync(to, to_context, from, from_context, bytes, NULL);
    return result == CUDA_SUCCESS ? cuStreamSynchronize(NULL) : result;
}

API CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *copy, CUstream stream)
{
    return cuMemcpyDtoDAsync_v2(copy->to, copy->from, copy->width_bytes * copy->height * copy->depth, stream);
}

API CUresult cuMemcpy3DBatchAsync_v2(size_t count, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags, CUstream stream)
{
    (void)flags;
    return cuMemcpyDtoDAsync_v2(0, 0, solid(ops, count), stream);
}

API CUresult cuMemcpy3DWithAttributesAsync(CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, CUstream stream)
{
    return cuMemcpy3DBatchAsync_v2(1, op, flags, stream);
}

API CUresult cuMemcpyWithAttributesAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *attrs, CUstream stream)
{
    (void)attrs;
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

/* To the host, into memory that is not pinned: there when what was queued before is through. Nothing here has contents. */
API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    (void)to, (void)from, (void)bytes;
    return cuStreamSynchronize(stream);
}

API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    (void)to, (void)from, (void)bytes;
    return cuCtxSynchronize();
}
