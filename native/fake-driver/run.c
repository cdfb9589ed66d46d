/*
 * Streams, events, kernels, graphs, and when things happen. See fake.h.
 *
 * Nothing runs: each stream is a queue of operations, and `pump` works out, whenever somebody asks, when each began and
 * ended. A card runs one kernel at a time; it is handed to a process for at most 2 ms ahead, which is the time slice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake.h"

enum {
    DEPTH = 1024,      /* operations in flight before a launch blocks, as on a real card */
    SLICE_NS = 2000000,
    EVENT_NS = 700,    /* what an event adds to a stream */
    KERNEL_NS = 2000,  /* a kernel without a duration of its own */
    STREAMS = 64,
    BYTES_A_NS = 1000  /* sets and copies: 1 TB/s */
};

typedef struct CUevent_st {
    int64_t at_ns; /* -1: not yet */
    bool recorded;
} event;

enum op_kind { OP_KERNEL, OP_EVENT, OP_GATE, OP_WAIT_EVENT };

typedef struct {
    enum op_kind kind;
    int64_t submitted_ns, duration_ns;
    event *event;
    const uint32_t *word;
    uint32_t value;
    bool held; /* a gate that was found closed */
} op;

typedef struct CUstream_st {
    bool used;
    op ops[DEPTH * 4];
    unsigned int head, tail;
    int64_t ready_ns; /* end of the last operation worked out */
    struct CUgraph_st *capture;
} stream;

struct CUgraph_st {
    int64_t duration_ns;
    int nodes;
    int64_t memory; /* bytes of its memory nodes, not taken yet */
    struct node *list;
};

struct node {
    int type;
    int64_t bytes;
    struct node *next;
};

static stream streams[STREAMS];
static unsigned int in_flight;

#define STREAM_0 (&streams[0])
#define STREAM_THREAD (&streams[1])

static stream *stream_of(CUstream handle)
{
    if (handle == NULL || handle == CU_STREAM_LEGACY)
        return STREAM_0;
    return handle == CU_STREAM_PER_THREAD ? STREAM_THREAD : (stream *)handle;
}

/* Hands the card to an operation: when it begins, or -1 when that is not for this slice. */
static int64_t begin_on_card(int card, int64_t ready_ns, int64_t duration_ns, int64_t now)
{
    int64_t free_at = atomic_load(&fake_live->free_at_ns[card]), start;
    do {
        start = free_at > ready_ns ? free_at : ready_ns;
        if (start > now + SLICE_NS)
            return -1;
    } while (!atomic_compare_exchange_weak(&fake_live->free_at_ns[card], &free_at, start + duration_ns));
    atomic_fetch_add(&fake_self()->busy_ns[card], duration_ns);
    return start;
}

/* Works out the operation at the head of a stream; false when it has to wait. */
static bool step(stream *s, int64_t now)
{
    if (s->head == s->tail)
        return false;
    op *o = &s->ops[s->head % (DEPTH * 4)];
    int64_t ready = s->ready_ns > o->submitted_ns ? s->ready_ns : o->submitted_ns;
    if (o->kind == OP_KERNEL) {
        const int64_t start = begin_on_card(0, ready, o->duration_ns, now);
        if (start < 0)
            return false;
        s->ready_ns = start + o->duration_ns;
    } else if (o->kind == OP_EVENT) {
        s->ready_ns = ready + EVENT_NS;
        o->event->at_ns = s->ready_ns;
    } else if (o->kind == OP_GATE) {
        if ((int32_t)(__atomic_load_n(o->word, __ATOMIC_ACQUIRE) - o->value) < 0) {
            o->held = true;
            return false;
        }
        s->ready_ns = o->held && ready < now ? now : ready;
    } else {
        if (o->event->recorded && o->event->at_ns < 0)
            return false;
        s->ready_ns = o->event->at_ns > ready ? o->event->at_ns : ready;
    }
    s->head++;
    in_flight--;
    return true;
}

static void pump(void)
{
    const int64_t now = fake_now();
    bool moved = true;
    while (moved) {
        moved = false;
        for (int i = 0; i < STREAMS; i++)
            moved |= step(&streams[i], now);
    }
}

static void nap(long ns)
{
    const struct timespec time = {.tv_nsec = ns};
    nanosleep(&time, NULL);
}

/* Waits for room, as a real launch does; other threads go on meanwhile. Under the lock. */
static void push(stream *s, op o)
{
    if (in_flight >= DEPTH / 2)
        pump();
    while (in_flight >= DEPTH) {
        pthread_mutex_unlock(&fake_lock);
        nap(20000);
        pthread_mutex_lock(&fake_lock);
        pump();
    }
    o.submitted_ns = fake_now();
    s->ops[s->tail % (DEPTH * 4)] = o;
    s->tail++;
    in_flight++;
}

static bool done(const stream *s)
{
    return s->head == s->tail && s->ready_ns <= fake_now();
}

static CUresult leave(CUresult result)
{
    pthread_mutex_unlock(&fake_lock);
    return result;
}

/* ---- streams ---- */

API CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    for (int i = 2; i < STREAMS; i++) {
        if (!streams[i].used) {
            streams[i].used = true;
            streams[i].head = streams[i].tail = 0;
            streams[i].ready_ns = 0;
            *out = (CUstream)&streams[i];
            return leave(CUDA_SUCCESS);
        }
    }
    return leave(CUDA_ERROR_OUT_OF_MEMORY);
}

API CUresult cuStreamSynchronize(CUstream handle)
{
    stream *s = stream_of(handle);
    for (;;) {
        pthread_mutex_lock(&fake_lock);
        pump();
        const bool over = done(s);
        const int64_t left = s->ready_ns - fake_now();
        pthread_mutex_unlock(&fake_lock);
        if (over)
            return CUDA_SUCCESS;
        if (left > 100000)
            nap(left > SLICE_NS ? SLICE_NS / 2 : (long)(left - 60000));
    }
}

API CUresult cuStreamDestroy_v2(CUstream handle)
{
    cuStreamSynchronize(handle);
    stream_of(handle)->used = false;
    return CUDA_SUCCESS;
}

API CUresult cuCtxSynchronize(void)
{
    for (int i = 0; i < STREAMS; i++)
        cuStreamSynchronize(i == 0 ? NULL : (CUstream)&streams[i]);
    return CUDA_SUCCESS;
}

API CUresult cuStreamQuery(CUstream handle)
{
    pthread_mutex_lock(&fake_lock);
    pump();
    return leave(done(stream_of(handle)) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

API CUresult cuStreamWaitValue32_v2(CUstream handle, CUdeviceptr address, uint32_t value, unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    push(stream_of(handle), (op){.kind = OP_GATE, .word = (const uint32_t *)(uintptr_t)address, .value = value});
    return leave(CUDA_SUCCESS);
}

API CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    static __thread int own;
    const int kept = own;
    own = *mode;
    *mode = kept;
    return CUDA_SUCCESS;
}

/* ---- events ---- */

API CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
    (void)flags;
    event *e = calloc(1, sizeof *e);
    e->at_ns = -1;
    *out = e;
    return CUDA_SUCCESS;
}

API CUresult cuEventDestroy_v2(CUevent e)
{
    (void)e; /* operations may still point to it; a test ends soon */
    return CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent e, CUstream handle)
{
    stream *s = stream_of(handle);
    pthread_mutex_lock(&fake_lock);
    if (s->capture != NULL)
        return leave(900); /* CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, as for a timing event */
    e->recorded = true;
    e->at_ns = -1;
    push(s, (op){.kind = OP_EVENT, .event = e});
    return leave(CUDA_SUCCESS);
}

API CUresult cuEventRecord_ptsz(CUevent e, CUstream handle)
{
    return cuEventRecord(e, handle == NULL ? CU_STREAM_PER_THREAD : handle);
}

API CUresult cuEventQuery(CUevent e)
{
    pthread_mutex_lock(&fake_lock);
    pump();
    return leave(!e->recorded || (e->at_ns >= 0 && e->at_ns <= fake_now()) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

API CUresult cuEventSynchronize(CUevent e)
{
    while (cuEventQuery(e) == CUDA_ERROR_NOT_READY)
        nap(20000);
    return CUDA_SUCCESS;
}

API CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
    if (from->at_ns < 0 || to->at_ns < 0)
        return CUDA_ERROR_NOT_READY;
    *ms = (float)((double)(to->at_ns - from->at_ns) / 1e6);
    return CUDA_SUCCESS;
}

API CUresult cuStreamWaitEvent(CUstream handle, CUevent e, unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    push(stream_of(handle), (op){.kind = OP_WAIT_EVENT, .event = e});
    return leave(CUDA_SUCCESS);
}

/* ---- what runs ---- */

static struct node *add_node(struct CUgraph_st *g, int type, int64_t bytes)
{
    struct node *n = calloc(1, sizeof *n);
    n->type = type;
    n->bytes = bytes;
    n->next = g->list;
    g->list = n;
    g->nodes++;
    return n;
}

static CUresult run(CUstream handle, int64_t duration_ns)
{
    stream *s = stream_of(handle);
    if (fake_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&fake_lock);
    if (s->capture != NULL) {
        s->capture->duration_ns += duration_ns;
        add_node(s->capture, CU_GRAPH_NODE_TYPE_KERNEL, 0);
    } else {
        push(s, (op){.kind = OP_KERNEL, .duration_ns = duration_ns});
    }
    return leave(CUDA_SUCCESS);
}

static int64_t duration_of(fake_function *f, void **params)
{
    if (strcmp(f->name, "spin") == 0 && params != NULL && params[0] != NULL) {
        int64_t ns;
        memcpy(&ns, params[0], sizeof ns);
        return ns;
    }
    return KERNEL_NS;
}

#define GRID unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared
#define UNUSED_GRID (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared

API CUresult cuLaunchKernel(CUfunction f, GRID, CUstream s, void **params, void **extra)
{
    UNUSED_GRID, (void)extra;
    if (f == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return run(s, duration_of(f, params));
}

API CUresult cuLaunchKernel_ptsz(CUfunction f, GRID, CUstream s, void **params, void **extra)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s == NULL ? CU_STREAM_PER_THREAD : s, params, extra);
}

API CUresult cuLaunchCooperativeKernel(CUfunction f, GRID, CUstream s, void **params)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, params, NULL);
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
    (void)extra;
    return f == NULL || c == NULL ? CUDA_ERROR_INVALID_VALUE : run(c->stream, duration_of(f, params));
}

static int64_t moving(size_t bytes)
{
    return KERNEL_NS + (int64_t)(bytes / BYTES_A_NS);
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s)
{
    (void)to, (void)value;
    return run(s, moving(count));
}

API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream s)
{
    (void)to, (void)value;
    return run(s, moving(count * 4));
}

API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count)
{
    return cuMemsetD8Async(to, value, count, NULL);
}

API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    (void)to, (void)from;
    return run(s, moving(bytes));
}

API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    (void)to, (void)from;
    return run(s, moving(bytes));
}

/* ---- graphs ---- */

bool fake_is_capturing(CUstream handle)
{
    return stream_of(handle)->capture != NULL;
}

CUdeviceptr fake_capture_alloc(CUstream handle, int64_t bytes)
{
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *g = stream_of(handle)->capture;
    add_node(g, CU_GRAPH_NODE_TYPE_MEM_ALLOC, bytes);
    g->memory += bytes;
    const CUdeviceptr address = fake_graph_address(0, bytes);
    pthread_mutex_unlock(&fake_lock);
    return address;
}

API CUresult cuGraphCreate(CUgraph *out, unsigned int flags)
{
    (void)flags;
    *out = calloc(1, sizeof **out);
    return CUDA_SUCCESS;
}

API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode)
{
    (void)mode;
    stream_of(handle)->capture = calloc(1, sizeof(struct CUgraph_st));
    return CUDA_SUCCESS;
}

API CUresult cuStreamEndCapture(CUstream handle, CUgraph *out)
{
    stream *s = stream_of(handle);
    if (s->capture == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *out = s->capture;
    s->capture = NULL;
    return CUDA_SUCCESS;
}

API CUresult cuStreamIsCapturing(CUstream handle, int *status)
{
    *status = fake_is_capturing(handle);
    return CUDA_SUCCESS;
}

API CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count,
                                    CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    (void)before, (void)count;
    pthread_mutex_lock(&fake_lock);
    *out = (CUgraphNode)add_node(g, CU_GRAPH_NODE_TYPE_MEM_ALLOC, (int64_t)params->bytes);
    g->memory += (int64_t)params->bytes;
    params->address = fake_graph_address(0, (int64_t)params->bytes);
    return leave(CUDA_SUCCESS);
}

API CUresult cuGraphGetNodes(CUgraph g, CUgraphNode *nodes, size_t *count)
{
    size_t found = 0;
    for (struct node *n = g->list; n != NULL; n = n->next, found++) {
        if (nodes != NULL && found < *count)
            nodes[found] = (CUgraphNode)n;
    }
    *count = found;
    return CUDA_SUCCESS;
}

API CUresult cuGraphNodeGetType(CUgraphNode node, int *type)
{
    *type = ((struct node *)node)->type;
    return CUDA_SUCCESS;
}

API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out)
{
    memset(out, 0, sizeof *out);
    out->bytes = (size_t)((struct node *)node)->bytes;
    return CUDA_SUCCESS;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph g, unsigned long long flags)
{
    (void)flags;
    struct CUgraph_st *copy = malloc(sizeof *copy);
    *copy = *g;
    *out = (CUgraphExec)copy;
    return CUDA_SUCCESS;
}

API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph g, CUgraphNode *error, char *log, size_t size)
{
    (void)error, (void)log, (void)size;
    return cuGraphInstantiateWithFlags(out, g, 0);
}

API CUresult cuGraphUpload(CUgraphExec exec, CUstream handle)
{
    (void)handle;
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *g = (struct CUgraph_st *)exec;
    if (!fake_graph_memory(0, g->memory))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    g->memory = 0;
    return leave(CUDA_SUCCESS);
}

API CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle)
{
    const CUresult result = cuGraphUpload(exec, handle);
    return result != CUDA_SUCCESS ? result : run(handle, ((struct CUgraph_st *)exec)->duration_ns);
}

API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    free(exec);
    return CUDA_SUCCESS;
}

API CUresult cuGraphDestroy(CUgraph g)
{
    (void)g;
    return CUDA_SUCCESS;
}
