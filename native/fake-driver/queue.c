/*
 * Streams, events, and when things happen. See fake.h.
 *
 * Nothing runs: each stream is a queue of operations, and `pump` works out, whenever somebody asks, when each began and
 * ended. What runs beside what is place.c's.
 */
#include <stdlib.h>
#include <time.h>

#include "place.h"
#include "queue.h"

enum {
    NAP_NS = 1000000, /* longest sleep of who waits for a stream */
    EVENT_NS = 700, /* what an event adds to a stream, and FAKE_CUDA_EVENT_NS more */
    STREAMS = 64
};

static stream streams[STREAMS];
static unsigned int in_flight;
static __thread int capture_mode;

#define STREAM_0 (&streams[0])

/* NULL: none is left. With the lock or without it. */
static stream *unused_stream(void)
{
    for (int i = 1; i < STREAMS; i++) {
        if (!atomic_exchange(&streams[i].used, true))
            return &streams[i];
    }
    return NULL;
}

/* A thread's own, made at its first use; it is never given back, and the last threads share the legacy one. */
static stream *own_stream(void)
{
    static __thread stream *own;
    if (own == NULL)
        own = unused_stream();
    return own != NULL ? own : STREAM_0;
}

stream *fake_stream_of(CUstream handle)
{
    if (handle == NULL || handle == CU_STREAM_LEGACY)
        return STREAM_0;
    return handle == CU_STREAM_PER_THREAD ? own_stream() : (stream *)handle;
}

static bool opened(const op *gate)
{
    return (int32_t)(__atomic_load_n(gate->word, __ATOMIC_ACQUIRE) - gate->value) >= 0;
}

static int64_t number_of(const char *name)
{
    const char *text = getenv(name);
    return text == NULL ? 0 : atoll(text);
}

/* How much longer than a library's own kernels a program's look between two events, as on cards: FAKE_CUDA_LATE_NS. */
static int64_t late_ns(void)
{
    static int64_t late = -1;
    return late >= 0 ? late : (late = number_of("FAKE_CUDA_LATE_NS"));
}

/* How much longer a set or copy takes right behind another than behind an event, as on cards: FAKE_CUDA_CLOSE_NS. */
static int64_t close_ns(void)
{
    static int64_t close = -1;
    return close >= 0 ? close : (close = number_of("FAKE_CUDA_CLOSE_NS"));
}

static int64_t event_ns(void)
{
    static int64_t more = -1;
    more = more >= 0 ? more : number_of("FAKE_CUDA_EVENT_NS");
    return EVENT_NS + more;
}

/* How much later an event is that has launches behind it, as on cards: FAKE_CUDA_BEHIND_NS. */
static int64_t behind_ns(void)
{
    static int64_t behind = -1;
    return behind >= 0 ? behind : (behind = number_of("FAKE_CUDA_BEHIND_NS"));
}

/* Works out the operation at the head of a stream; false when it has to wait. */
static bool step(stream *s, int64_t now)
{
    if (s->head == s->tail)
        return false;
    op *o = &s->ops[s->head % (DEPTH * 4)];
    int64_t ready = s->ready_ns > o->submitted_ns ? s->ready_ns : o->submitted_ns;
    if (o->kind == OP_KERNEL) {
        ready += o->work == MOVES && s->last == MOVES ? close_ns() : 0;
        o->duration_ns = o->held ? o->duration_ns : fake_at_its_clock(ready, o->duration_ns);
        o->held = true;
        const int64_t start = fake_place(0, ready, o->duration_ns, o->parts, now);
        if (start < 0)
            return false;
        s->ready_ns = start + o->duration_ns;
    } else if (o->kind == OP_EVENT) {
        s->ready_ns = ready + event_ns() + (s->last == SPINS ? late_ns() : 0);
        if (s->tail - s->head > 1 && s->ops[(s->head + 1) % (DEPTH * 4)].kind == OP_KERNEL)
            s->ready_ns += behind_ns();
        if (o->time == o->event->times)
            o->event->at_ns = s->ready_ns;
    } else if (o->kind == OP_GATE) {
        if (!opened(o)) {
            o->held = true;
            return false;
        }
        s->ready_ns = o->held && ready < now ? now : ready;
    } else {
        if (o->event->times > 0 && o->event->at_ns < 0)
            return false;
        s->ready_ns = o->event->at_ns > ready ? o->event->at_ns : ready;
    }
    s->last = o->kind == OP_KERNEL ? o->work : RUNS;
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
void fake_push(stream *s, op o)
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

/* ---- streams ---- */

API CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    stream *made = unused_stream();
    if (made != NULL) {
        made->card = fake_current() == NULL ? 0 : fake_current()->device;
        made->context = fake_current();
    }
    *out = (CUstream)made;
    return fake_leave(made == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS);
}

bool fake_stream_idle(CUstream handle)
{
    pump();
    return done(fake_stream_of(handle));
}

int fake_card_of(CUstream handle)
{
    const bool made = handle != NULL && handle != CU_STREAM_LEGACY && handle != CU_STREAM_PER_THREAD;
    return made ? fake_stream_of(handle)->card : fake_current() == NULL ? 0 : fake_current()->device;
}


API CUresult cuStreamGetCtx(CUstream handle, CUcontext *out)
{
    fake_context *made_in = fake_stream_of(handle)->context;
    *out = made_in != NULL ? made_in : fake_current();
    return CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(CUstream handle)
{
    stream *s = fake_stream_of(handle);
    for (;;) {
        pthread_mutex_lock(&fake_lock);
        pump();
        const bool over = done(s);
        const int64_t left = s->ready_ns - fake_now();
        pthread_mutex_unlock(&fake_lock);
        if (over)
            return CUDA_SUCCESS;
        if (left > 100000)
            nap(left > NAP_NS ? NAP_NS : (long)(left - 60000));
    }
}

API CUresult cuStreamSynchronize_ptsz(CUstream handle)
{
    return cuStreamSynchronize(fake_own(handle));
}

API CUresult cuStreamDestroy_v2(CUstream handle)
{
    cuStreamSynchronize(handle);
    pthread_mutex_lock(&fake_lock);
    fake_stream_of(handle)->capture = NULL;
    fake_stream_of(handle)->used = false;
    return fake_leave(CUDA_SUCCESS);
}

void fake_streams_gone(const fake_context *context)
{
    for (int i = 1; i < STREAMS; i++) {
        if (streams[i].context == context)
            streams[i].capture = NULL;
    }
}

API CUresult cuCtxSynchronize(void)
{
    for (int i = 0; i < STREAMS; i++)
        cuStreamSynchronize(i == 0 ? NULL : (CUstream)&streams[i]);
    return CUDA_SUCCESS;
}

API CUresult cuCtxSynchronize_v2(CUcontext context)
{
    (void)context;
    return cuCtxSynchronize();
}

/* Whoever asks a stream that records spoils the recording; nothing at all may be asked while one is of the mode that forbids it. */
static bool spoilt(const stream *asked)
{
    bool any = false;
    for (int i = 0; i < STREAMS; i++) {
        stream *s = &streams[i];
        if (s->capture != NULL && (s == asked || (s->capture->mode == 0 && capture_mode != CU_STREAM_CAPTURE_MODE_RELAXED)))
            any = s->capture->spoilt = true;
    }
    return any;
}

bool fake_forbidden(void)
{
    return spoilt(NULL);
}

/* As a question whether it is through; its context one may ask for. */
API CUresult cuStreamGetDevice(CUstream handle, CUdevice *out)
{
    pthread_mutex_lock(&fake_lock);
    if (spoilt(fake_stream_of(handle)))
        return fake_leave(FAKE_CAPTURING);
    *out = fake_card_of(handle);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuStreamQuery(CUstream handle)
{
    pthread_mutex_lock(&fake_lock);
    if (spoilt(fake_stream_of(handle)))
        return fake_leave(FAKE_CAPTURING);
    pump();
    return fake_leave(done(fake_stream_of(handle)) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

API CUresult cuStreamWaitValue32_v2(CUstream handle, CUdeviceptr address, uint32_t value, unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    op gate = {.kind = OP_GATE, .word = (const uint32_t *)(uintptr_t)address, .value = value};
    stream *s = fake_stream_of(handle);
    pump();
    /* On an idle stream it may be opened before anybody looks again: what is behind it does not begin before that all the same. */
    gate.held = !opened(&gate) && done(s);
    fake_push(s, gate);
    fake_leave(CUDA_SUCCESS);
    if (getenv("FAKE_CUDA_UNMAP_WAITS") != NULL)
        nap(NAP_NS); /* for somebody to come between it and what is launched behind it */
    return CUDA_SUCCESS;
}

API CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    const int kept = capture_mode;
    capture_mode = *mode;
    *mode = kept;
    return CUDA_SUCCESS;
}

/* ---- events ---- */

static _Atomic int events;

/* There are FAKE_CUDA_EVENTS of them. */
API CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
    (void)flags;
    const char *most = getenv("FAKE_CUDA_EVENTS");
    if (most != NULL && atomic_load(&events) >= atoi(most))
        return CUDA_ERROR_OUT_OF_MEMORY;
    atomic_fetch_add(&events, 1);
    event *e = calloc(1, sizeof *e);
    e->at_ns = -1;
    *out = e;
    return CUDA_SUCCESS;
}

API CUresult cuEventDestroy_v2(CUevent e)
{
    (void)e; /* operations may still point to it; a test ends soon */
    atomic_fetch_sub(&events, 1);
    return CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent e, CUstream handle)
{
    stream *s = fake_stream_of(handle);
    pthread_mutex_lock(&fake_lock);
    if (s->capture != NULL)
        return fake_leave(FAKE_CAPTURING); /* as for a timing event */
    e->times++;
    e->at_ns = -1;
    fake_push(s, (op){.kind = OP_EVENT, .event = e, .time = e->times});
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuEventRecord_ptsz(CUevent e, CUstream handle)
{
    return cuEventRecord(e, fake_own(handle));
}

API CUresult cuEventQuery(CUevent e)
{
    pthread_mutex_lock(&fake_lock);
    if (spoilt(NULL))
        return fake_leave(FAKE_CAPTURING);
    pump();
    return fake_leave(e->times == 0 || (e->at_ns >= 0 && e->at_ns <= fake_now()) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
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
    fake_push(fake_stream_of(handle), (op){.kind = OP_WAIT_EVENT, .event = e});
    return fake_leave(CUDA_SUCCESS);
}
