/*
 * Contexts and streams that end while something is measured in them. A context's events, and the word that its gates wait for, go with it
 * (process/state.h). Hooks of what ends a stream.
 */
#include <string.h>

#include "memory/graph.h"
#include "pay/capture.h"
#include "price/bench.h"
#include "price/bulk.h"
#include "price/burst.h"
#include "prim/prim.h"

/* The bench of a context, whether or not that is the current one; NULL: none. */
static hami_bench *bench_of(CUcontext context)
{
    for (int i = 0; context != NULL && i < HAMI_BENCHES; i++) {
        if (hami_benches[i].context == context)
            return &hami_benches[i];
    }
    return NULL;
}

/* A measurement is begun and ended under the lock, so none is under way now, and none begins: it would be of a context that is not there when it ends. */
hami_leave hami_context_leaves(CUcontext context)
{
    const hami_leave leave = {.context = context, .stay = hami_stay()};
    hami_captures_context_leaves(context);
    if (!hami_bench_enter())
        return leave;
    hami_bench *b = bench_of(context);
    if (b != NULL) {
        hami_bulk_forget(b);
        b->leaving = true;
    }
    hami_bench_leave();
    return leave;
}

static void forget(hami_bench *b)
{
    for (int i = 0; i < HAMI_BENCH_SAMPLES; i++) {
        if (b->samples[i].pending)
            atomic_fetch_sub(&b->samples[i].cost->in_flight, 1);
    }
    memset(b, 0, sizeof *b);
}

void hami_context_left(const hami_leave *leave, bool gone)
{
    hami_captures_context_left(leave->context, gone);
    if (hami_bench_enter()) {
        hami_bench *b = bench_of(leave->context);
        if (b != NULL && b->leaving && gone)
            forget(b);
        else if (b != NULL)
            b->leaving = false;
        hami_bench_leave();
    }
    if (gone && leave->context != NULL)
        hami_burst_context_gone(leave->context);
    hami_stayed(leave->stay);
}

/* ---- streams: whatever has the handle next is another ---- */

static void stream_leaves(CUstream stream)
{
    hami_burst_stream_gone(stream);
    hami_bulk_stream_gone(stream);
    hami_graph_stream_gone(stream);
    hami_captures_stream_leaves(stream);
}

static CUresult stream_left(CUstream stream, CUresult result)
{
    hami_captures_stream_left(stream, result == CUDA_SUCCESS);
    return result;
}

CUresult cuStreamDestroy(CUstream stream)
{
    stream_leaves(stream);
    return stream_left(stream, BEHIND(cuStreamDestroy, stream));
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    stream_leaves(stream);
    return stream_left(stream, BEHIND(cuStreamDestroy_v2, stream));
}
