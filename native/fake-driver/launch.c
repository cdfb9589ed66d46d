/* What runs on a card: kernels, sets, copies. See fake.h. */
#include <string.h>

#include "place.h"
#include "queue.h"

enum {
    KERNEL_NS = 2000, /* a kernel without a duration of its own */
    BYTES_A_NS = 1000 /* sets and copies: 1 TB/s */
};

CUresult fake_run(CUstream handle, int64_t duration_ns, int parts, fake_work work)
{
    stream *s = fake_stream_of(handle);
    if (fake_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&fake_unmapping);
    pthread_mutex_unlock(&fake_unmapping);
    pthread_mutex_lock(&fake_lock);
    if (s->capture != NULL) {
        s->capture->duration_ns += duration_ns;
        if (s->capture->parts < parts)
            s->capture->parts = parts;
        fake_add_node(s->capture, CU_GRAPH_NODE_TYPE_KERNEL, 0);
    } else {
        fake_push(s, (op){.kind = OP_KERNEL, .duration_ns = duration_ns, .parts = parts, .work = work});
    }
    return fake_leave(CUDA_SUCCESS);
}

static fake_work work_of(const fake_function *f)
{
    return strcmp(f->name, "spin") == 0 ? SPINS : RUNS;
}

static int64_t duration_of(const fake_function *f, void **params)
{
    if (work_of(f) == SPINS && params != NULL && params[0] != NULL) {
        int64_t ns;
        memcpy(&ns, params[0], sizeof ns);
        return ns;
    }
    return KERNEL_NS;
}

static int parts_of(unsigned int gx, unsigned int gy, unsigned int gz)
{
    const uint64_t area = (uint64_t)gx * gy; /* times gz it may be more than 64 bits hold */
    return fake_parts(area > UINT32_MAX ? UINT32_MAX : area * gz);
}

static bool has_room(const fake_function *f)
{
    if (f->local == 0 || fake_current() == NULL)
        return true;
    pthread_mutex_lock(&fake_lock);
    const bool fits = fake_local(f);
    pthread_mutex_unlock(&fake_lock);
    return fits;
}

#define GRID unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared
#define UNUSED_BLOCK (void)bx, (void)by, (void)bz, (void)shared

API CUresult cuLaunchKernel(CUfunction f, GRID, CUstream s, void **params, void **extra)
{
    UNUSED_BLOCK, (void)extra;
    if (f == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!has_room(f))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return fake_run(s, duration_of(f, params), parts_of(gx, gy, gz), work_of(f));
}

API CUresult cuLaunchKernel_ptsz(CUfunction f, GRID, CUstream s, void **params, void **extra)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, fake_own(s), params, extra);
}

API CUresult cuLaunchCooperativeKernel(CUfunction f, GRID, CUstream s, void **params)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, params, NULL);
}

API CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, GRID, CUstream s, void **params)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, fake_own(s), params, NULL);
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
    (void)extra;
    return f == NULL || c == NULL ? CUDA_ERROR_INVALID_VALUE : fake_run(c->stream, duration_of(f, params), parts_of(c->gx, c->gy, c->gz), work_of(f));
}

API CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
    (void)extra;
    return f == NULL || c == NULL ? CUDA_ERROR_INVALID_VALUE : fake_run(fake_own(c->stream), duration_of(f, params), parts_of(c->gx, c->gy, c->gz), work_of(f));
}

static int64_t moving(size_t bytes)
{
    return KERNEL_NS + (int64_t)(bytes / BYTES_A_NS);
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s)
{
    (void)to, (void)value;
    return fake_run(s, moving(count), FAKE_PARTS, MOVES);
}

API CUresult cuMemsetD8Async_ptsz(CUdeviceptr to, unsigned char value, size_t count, CUstream s)
{
    return cuMemsetD8Async(to, value, count, fake_own(s));
}

API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream s)
{
    (void)to, (void)value;
    return fake_run(s, moving(count * 4), FAKE_PARTS, MOVES);
}

API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count)
{
    return cuMemsetD8Async(to, value, count, NULL);
}

API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    (void)to, (void)from;
    return fake_run(s, moving(bytes), FAKE_PARTS, MOVES);
}

API CUresult cuMemcpyDtoDAsync_v2_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    return cuMemcpyDtoDAsync_v2(to, from, bytes, fake_own(s));
}

API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    (void)to, (void)from;
    return fake_run(s, moving(bytes), FAKE_PARTS, MOVES);
}
