/* See capture.h. Hooks of what begins and ends a capture. */
#include "pay/capture.h"

#include <pthread.h>
#include <stdlib.h>

#include "memory/graph.h"
#include "memory/later.h"
#include "pay/lane.h"
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

int hami_relaxed_begin(void)
{
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    return USE(cuThreadExchangeStreamCaptureMode, &mode) == CUDA_SUCCESS ? mode : -1;
}

void hami_relaxed_end(int before)
{
    if (before >= 0)
        USE(cuThreadExchangeStreamCaptureMode, &before);
}

/* ---- those that are under way: a capture ends with the stream on which it was begun, and with that one's context ---- */

typedef struct {
    CUstream stream;
    const void *thread; /* whose own stream it is, by something of its own; NULL: it has a handle */
} origin;

typedef enum { WITH_STREAM, WITH_CONTEXT } way;

typedef struct capture {
    origin from;
    CUcontext context; /* NULL: not known */
    bool leaves[2];    /* its stream may be about to end, its context */
    struct capture *next;
} capture;

static capture *first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */

static origin origin_of(CUstream stream, bool per_thread)
{
    if (stream == CU_STREAM_PER_THREAD || (per_thread && stream == NULL))
        return (origin){CU_STREAM_PER_THREAD, &hami_mine};
    return (origin){stream, NULL};
}

/* To ask a stream for its context spoils no capture, its own or another (measured). */
static CUcontext context_of(const origin *from)
{
    CUcontext context = NULL;
    const bool named = from->thread == NULL && from->stream != NULL && from->stream != CU_STREAM_LEGACY;
    if (named && USE(cuStreamGetCtx, from->stream, &context) == CUDA_SUCCESS && context != NULL)
        return context;
    return USE(cuCtxGetCurrent, &context) == CUDA_SUCCESS ? context : NULL;
}

/* Under the lock, as the next. What points to it, or to NULL. */
static capture **find(const origin *from)
{
    capture **at = &first;
    while (*at != NULL && ((*at)->from.stream != from->stream || (*at)->from.thread != from->thread))
        at = &(*at)->next;
    return at;
}

static void take_out(capture **at)
{
    capture *c = *at;
    *at = c->next;
    free(c);
    atomic_fetch_sub(&hami_hot.captures, 1);
}

/* One that is noted there already has ended unseen. Where there is no memory to remember it, it is taken to go on until the process ends. */
static void begun(const origin *from, CUcontext context)
{
    capture *made = malloc(sizeof *made);
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&hami_hot.captures, 1);
    capture **at = find(from);
    if (*at != NULL)
        take_out(at);
    if (made != NULL) {
        *made = (capture){.from = *from, .context = context, .next = first};
        first = made;
    }
    pthread_mutex_unlock(&lock);
}

static bool noted(const origin *from)
{
    pthread_mutex_lock(&lock);
    const bool is = *find(from) != NULL;
    pthread_mutex_unlock(&lock);
    return is;
}

static void over(const origin *from)
{
    pthread_mutex_lock(&lock);
    capture **at = find(from);
    if (*at != NULL)
        take_out(at);
    pthread_mutex_unlock(&lock);
}

static bool is_of(const capture *c, way with, const void *what)
{
    return what != NULL && (with == WITH_CONTEXT ? c->context == what : c->from.thread == NULL && c->from.stream == what);
}

/* In a forked child another thread may have had the lock; nothing is captured there. */
static void leaves(way with, const void *what)
{
    if (!atomic_load(&hami_active))
        return;
    pthread_mutex_lock(&lock);
    for (capture *c = first; c != NULL; c = c->next)
        c->leaves[with] |= is_of(c, with, what);
    pthread_mutex_unlock(&lock);
}

/* What has the name next is another, and may capture by now. */
static void left(way with, const void *what, bool gone)
{
    if (!atomic_load(&hami_active))
        return;
    pthread_mutex_lock(&lock);
    for (capture **at = &first; *at != NULL;) {
        capture *c = *at;
        const bool meant = c->leaves[with] && is_of(c, with, what);
        c->leaves[with] &= !meant;
        if (meant && gone)
            take_out(at);
        else
            at = &c->next;
    }
    pthread_mutex_unlock(&lock);
}

void hami_captures_stream_leaves(CUstream stream)
{
    leaves(WITH_STREAM, stream);
}

void hami_captures_stream_left(CUstream stream, bool gone)
{
    left(WITH_STREAM, stream, gone);
}

void hami_captures_context_leaves(CUcontext context)
{
    leaves(WITH_CONTEXT, context);
}

void hami_captures_context_left(CUcontext context, bool gone)
{
    left(WITH_CONTEXT, context, gone);
}

/* ---- hooks ---- */

/* Counted before the driver sees it: a launch of another thread must not put an event into a capture just begun. */
#define BEGIN(name, per_thread, parameters, ...)                              \
    CUresult name parameters                                                  \
    {                                                                         \
        const origin from = origin_of(stream, per_thread);                    \
        const CUcontext context = context_of(&from);                          \
        atomic_fetch_add(&hami_hot.captures, 1);                              \
        hami_burst_pause();                                                   \
        hami_graph_pause();                                                   \
        hami_later_pause();                                                   \
        hami_pools_pause();                                                   \
        const CUresult result = BEHIND(name, __VA_ARGS__);                    \
        if (result == CUDA_SUCCESS && atomic_load(&hami_active))              \
            begun(&from, context);                                            \
        atomic_fetch_sub(&hami_hot.captures, 1);                              \
        return result;                                                        \
    }
#define BOTH(X, name, parameters, ...) X(name, false, parameters, __VA_ARGS__) X(name##_ptsz, true, parameters, __VA_ARGS__)
BOTH(BEGIN, cuStreamBeginCapture, (CUstream stream), stream)
BOTH(BEGIN, cuStreamBeginCapture_v2, (CUstream stream, int mode), stream, mode)
BOTH(BEGIN, cuStreamBeginCaptureToGraph,
     (CUstream stream, CUgraph graph, const CUgraphNode *nodes, const void *edges, size_t count, int mode), stream, graph, nodes,
     edges, count, mode)
BOTH(BEGIN, cuStreamBeginRecaptureToGraph, (CUstream stream, int mode, CUgraph graph, void *callback, void *user), stream, mode,
     graph, callback, user)
/* Into a graphics command list: what is launched goes there and not to the card, as into a graph. */
BOTH(BEGIN, cuStreamBeginCaptureToCig, (CUstream stream, void *params), stream, params)

/*
 * One that the driver did not end well it says itself whether it has ended: one that was spoilt has; not where another thread has to end it, nor where none was
 * begun on this stream. Where it does not say the capture goes on.
 */
static bool goes_on(const origin *from)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    return noted(from) && (USE(cuStreamIsCapturing, from->stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE);
}

static CUresult ended(CUstream stream, bool per_thread, CUresult result)
{
    const origin from = origin_of(stream, per_thread);
    if (atomic_load(&hami_active) && (result == CUDA_SUCCESS || !goes_on(&from)))
        over(&from);
    return result;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *out)
{
    return ended(stream, false, BEHIND(cuStreamEndCapture, stream, out));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *out)
{
    return ended(stream, true, BEHIND(cuStreamEndCapture_ptsz, stream, out));
}

/* There is no broken capture of this kind that an end takes away: it has ended, or it has not. */
static CUresult ended_well(CUstream stream, bool per_thread, CUresult result)
{
    return result == CUDA_SUCCESS ? ended(stream, per_thread, result) : result;
}

CUresult cuStreamEndCaptureToCig(CUstream stream)
{
    return ended_well(stream, false, BEHIND(cuStreamEndCaptureToCig, stream));
}

CUresult cuStreamEndCaptureToCig_ptsz(CUstream stream)
{
    return ended_well(stream, true, BEHIND(cuStreamEndCaptureToCig_ptsz, stream));
}
