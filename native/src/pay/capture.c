/* See capture.h. Hooks of what begins and ends a capture. */
#include "pay/capture.h"

#include "memory/graph.h"
#include "memory/later.h"
#include "price/burst.h"
#include "process/driver.h"
#include "process/state.h"

bool hami_captured(CUstream stream)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (!hami_capturing())
        return false;
    /* The legacy stream answers with an error while others capture; then this launch fails anyway. */
    return USE(cuStreamIsCapturing, stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

static CUresult begun(CUresult result)
{
    if (result == CUDA_SUCCESS)
        atomic_fetch_add(&hami_hot.captures, 1);
    return result;
}

static CUresult ended(CUresult result)
{
    int now = atomic_load(&hami_hot.captures);
    while (result != CUDA_ERROR_INVALID_VALUE && now > 0 && !atomic_compare_exchange_weak(&hami_hot.captures, &now, now - 1)) {
    }
    return result;
}

/* Counted before the driver sees it: a launch of another thread must not put an event into a capture just begun. */
#define BEGIN(name, parameters, ...)                                \
    CUresult name parameters                                        \
    {                                                               \
        atomic_fetch_add(&hami_hot.captures, 1);                        \
        hami_burst_pause();                                             \
        hami_graph_pause();                                             \
        hami_later_pause();                                             \
        hami_pools_pause();                                             \
        const CUresult result = begun(BEHIND(name, __VA_ARGS__));   \
        atomic_fetch_sub(&hami_hot.captures, 1);                        \
        return result;                                              \
    }
#define BOTH(X, name, parameters, ...) X(name, parameters, __VA_ARGS__) X(name##_ptsz, parameters, __VA_ARGS__)
BOTH(BEGIN, cuStreamBeginCapture, (CUstream stream), stream)
BOTH(BEGIN, cuStreamBeginCapture_v2, (CUstream stream, int mode), stream, mode)
BOTH(BEGIN, cuStreamBeginCaptureToGraph,
     (CUstream stream, CUgraph graph, const CUgraphNode *nodes, const void *edges, size_t count, int mode), stream, graph, nodes,
     edges, count, mode)
BOTH(BEGIN, cuStreamBeginRecaptureToGraph, (CUstream stream, int mode, CUgraph graph, void *callback, void *user), stream, mode,
     graph, callback, user)
/* Into a graphics command list: what is launched goes there and not to the card, as into a graph. */
BOTH(BEGIN, cuStreamBeginCaptureToCig, (CUstream stream, void *params), stream, params)

CUresult cuStreamEndCapture(CUstream stream, CUgraph *out)
{
    return ended(BEHIND(cuStreamEndCapture, stream, out));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *out)
{
    return ended(BEHIND(cuStreamEndCapture_ptsz, stream, out));
}

/* There is no broken capture of this kind that an end takes away: it has ended, or it has not. */
static CUresult ended_well(CUresult result)
{
    return result == CUDA_SUCCESS ? ended(result) : result;
}

CUresult cuStreamEndCaptureToCig(CUstream stream)
{
    return ended_well(BEHIND(cuStreamEndCaptureToCig, stream));
}

CUresult cuStreamEndCaptureToCig_ptsz(CUstream stream)
{
    return ended_well(BEHIND(cuStreamEndCaptureToCig_ptsz, stream));
}
