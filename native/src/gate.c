/* See gate.h. */
#include "gate.h"

#include <pthread.h>
#include <string.h>

#include "log.h"
#include "prim/prim.h"

enum {
    CONTEXTS = 16,             /* contexts of a process that are measured */
    WAITING = 16,              /* measurements not read yet, a context */
    GATE_PATIENCE_NS = 200000, /* a gate closed for longer is opened: somebody else filled the queue behind it */
    OFFSET_DEFAULT_NS = 1400,  /* H100; used where calibration is not possible */
    OFFSET_MOST_NS = 20000,
    DRAIN_NS = 1500 * 1000,
    RETRY_NS = 50 * 1000 * 1000
};

struct hami_sample {
    hami_card *card;
    hami_cost *cost;
    CUstream stream;
    CUevent start, end;
    int64_t charged_ns;
    int64_t host_ns; /* not gated: host time between the events, which may be inside the pair; while open, its start */
    uint32_t number; /* of the launch, by its key */
    uint32_t ticket; /* value that opens the gate; 0: not gated */
    bool pending;    /* end is recorded, not read yet */
    bool ours;       /* it was our turn on the card */
    bool spoilt;     /* the gate was opened by force: host delay is inside */
};

typedef struct {
    CUcontext context; /* NULL: free */
    uint32_t *word;    /* host memory that gates wait on; NULL: events only */
    CUdeviceptr word_device;
    CUfunction null_kernel; /* NULL: no calibration here */
    CUstream side;
    int64_t calibrate_ns; /* when to calibrate next */
    int calibrations;
    int64_t offsets[3]; /* ns, the last ones */
    hami_sample own; /* its events are for calibration */
    CUevent fence;   /* the end of our turn on the card */
    hami_sample samples[WAITING];
} bench;

static bench benches[CONTEXTS];
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held from begin to end, and while reading */
static uint32_t tickets;                                 /* under `busy` */

/* The gate that is closed now, for the watch thread: written before it closes and after it opens. */
static _Atomic(uint32_t *) closed_word;
static _Atomic uint32_t closed_ticket;
static _Atomic int64_t closed_since_ns;
static _Atomic uint32_t forced_ticket;

static void open_gate(uint32_t *word, uint32_t ticket)
{
    __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
}

bool hami_gate_watch(void)
{
    uint32_t *word = atomic_load(&closed_word);
    if (word == NULL)
        return false;
    const uint32_t ticket = atomic_load(&closed_ticket);
    if (hami_now_ns() - atomic_load(&closed_since_ns) > GATE_PATIENCE_NS && atomic_load(&closed_word) == word) {
        atomic_store(&forced_ticket, ticket);
        /* An older ticket only repeats what its owner wrote; the word never needs to go back, and never does: */
        uint32_t there = __atomic_load_n(word, __ATOMIC_RELAXED);
        while ((int32_t)(ticket - there) > 0 &&
               !__atomic_compare_exchange_n(word, &there, ticket, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
        }
    }
    return true;
}

/* ---- calibration ---- */

static const char null_kernel[] = ".version 6.4\n.target sm_50\n.address_size 64\n.visible .entry hami_null()\n{\n ret;\n}\n";

static CUresult launch_null(CUfunction f, CUstream stream)
{
    return BEHIND(cuLaunchKernel, f, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
}

/* Nanoseconds from start to end, or -1. */
static int64_t elapsed(CUevent start, CUevent end)
{
    float ms = 0;
    return USE(cuEventElapsedTime, &ms, start, end) == CUDA_SUCCESS ? (int64_t)((double)ms * 1e6) : -1;
}

/* Time of `count` null launches queued behind a gate. */
static int64_t time_null(bench *b, CUfunction f, CUstream stream, int count)
{
    hami_sample *s = &b->own;
    const uint32_t ticket = ++tickets;
    USE(cuStreamWaitValue32_v2, stream, b->word_device, ticket, CU_STREAM_WAIT_VALUE_GEQ);
    USE(cuEventRecord, s->start, stream);
    for (int i = 0; i < count; i++)
        launch_null(f, stream);
    USE(cuEventRecord, s->end, stream);
    open_gate(b->word, ticket);
    if (USE(cuStreamSynchronize, stream) != CUDA_SUCCESS)
        return -1;
    return elapsed(s->start, s->end);
}

static int64_t median_of(bench *b, CUfunction f, CUstream stream, int count)
{
    enum { TIMES = 7 };
    int64_t values[TIMES];
    for (int i = 0; i < TIMES; i++) {
        const int64_t value = time_null(b, f, stream, count);
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--)
            values[at] = values[at - 1];
        values[at] = value;
    }
    return values[TIMES / 2];
}

/* pair(n) = n * queued + offset, so the offset is what one pair shows beyond a 49th of the growth to 50. -1: cannot say. */
static int64_t measure_offset(bench *b)
{
    if (b->null_kernel == NULL || b->side == NULL)
        return -1;
    const int64_t one = median_of(b, b->null_kernel, b->side, 1), fifty = median_of(b, b->null_kernel, b->side, 50);
    hami_log(HAMI_LOG_DECISION, "one null launch %lld ns, fifty %lld", (long long)one, (long long)fifty);
    return one - (fifty - one) / 49;
}

static int64_t middle(int64_t a, int64_t b, int64_t c)
{
    const int64_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Under `busy`, with captures relaxed, nothing of ours on the card. About 1 ms. */
static void calibrate(bench *b, hami_card *card)
{
    static const int64_t again_ns[] = {150000000, 300000000, 1000000000, 5000000000, 60000000000};
    const int64_t offset = measure_offset(b);
    b->calibrate_ns = hami_now_ns() + again_ns[b->calibrations < 4 ? b->calibrations : 4];
    if (offset <= 0 || offset > OFFSET_MOST_NS) {
        if (atomic_load(&card->event_offset_ns) == 0)
            atomic_store(&card->event_offset_ns, OFFSET_DEFAULT_NS);
        return;
    }
    /* The first comes from a card that may have been asleep, at a slow clock: the next replaces it. */
    b->offsets[b->calibrations % 3] = offset;
    b->calibrations++;
    const int64_t now = b->calibrations < 4 ? offset : middle(b->offsets[0], b->offsets[1], b->offsets[2]);
    atomic_store(&card->event_offset_ns, now);
    hami_log(HAMI_LOG_DECISION, "a pair of events adds %lld ns, measured %lld", (long long)now, (long long)offset);
}

static void make_null_kernel(bench *b)
{
    CUmodule module = NULL;
    if (b->word == NULL || BEHIND(cuModuleLoadData, &module, null_kernel) != CUDA_SUCCESS ||
        USE(cuModuleGetFunction, &b->null_kernel, module, "hami_null") != CUDA_SUCCESS ||
        USE(cuStreamCreate, &b->side, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS ||
        launch_null(b->null_kernel, b->side) != CUDA_SUCCESS || USE(cuStreamSynchronize, b->side) != CUDA_SUCCESS)
        b->null_kernel = NULL;
}

/* ---- a context's bench ---- */

static void make_word(bench *b)
{
    void *host = NULL;
    if (USE(cuMemHostAlloc, &host, 64, CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE) != CUDA_SUCCESS ||
        USE(cuMemHostGetDevicePointer_v2, &b->word_device, host, 0) != CUDA_SUCCESS || hami_use.cuStreamWaitValue32_v2 == NULL)
        return;
    b->word = host;
    *b->word = tickets;
}

static bool fill(bench *b)
{
    if (USE(cuEventCreate, &b->own.start, 0) != CUDA_SUCCESS || USE(cuEventCreate, &b->own.end, 0) != CUDA_SUCCESS ||
        USE(cuEventCreate, &b->fence, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS)
        return false;
    for (int i = 0; i < WAITING; i++) {
        if (USE(cuEventCreate, &b->samples[i].start, 0) != CUDA_SUCCESS ||
            USE(cuEventCreate, &b->samples[i].end, 0) != CUDA_SUCCESS)
            return false;
    }
    return true;
}

static void prepare(bench *b, hami_card *card, CUcontext context)
{
    /* Another thread may be capturing with the strict mode, which forbids what follows to everybody. */
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    const bool relaxed = USE(cuThreadExchangeStreamCaptureMode, &mode) == CUDA_SUCCESS;
    if (b->context == NULL && fill(b)) {
        b->context = context;
        make_word(b);
        make_null_kernel(b);
    }
    if (b->context != NULL)
        calibrate(b, card);
    if (relaxed)
        USE(cuThreadExchangeStreamCaptureMode, &mode);
}

/* Under `busy`. The bench of the current context, made at its first use. */
static bench *bench_now(hami_card *card)
{
    CUcontext context = NULL;
    bench *empty = NULL;
    if (USE(cuCtxGetCurrent, &context) != CUDA_SUCCESS || context == NULL)
        return NULL;
    for (int i = 0; i < CONTEXTS; i++) {
        if (benches[i].context == context)
            return &benches[i];
        if (benches[i].context == NULL && empty == NULL)
            empty = &benches[i];
    }
    if (empty == NULL)
        return NULL;
    memset(empty, 0, sizeof *empty);
    prepare(empty, card, context);
    return empty->context == NULL ? NULL : empty;
}

void hami_context_gone(CUcontext context)
{
    pthread_mutex_lock(&busy);
    for (int i = 0; i < CONTEXTS; i++) {
        for (int j = 0; benches[i].context == context && j < WAITING; j++) {
            hami_sample *s = &benches[i].samples[j];
            if (s->pending)
                atomic_fetch_sub(&s->cost->in_flight, 1);
            s->pending = false;
        }
        if (benches[i].context == context)
            memset(&benches[i], 0, sizeof benches[i]);
    }
    pthread_mutex_unlock(&busy);
}

static void read_one(hami_sample *s)
{
    const CUresult state = USE(cuEventQuery, s->end);
    if (state == CUDA_ERROR_NOT_READY)
        return;
    s->pending = false;
    atomic_fetch_sub_explicit(&s->cost->in_flight, 1, memory_order_relaxed);
    const int64_t pair = state == CUDA_SUCCESS && !s->spoilt ? elapsed(s->start, s->end) : -1;
    if (pair < 0)
        return;
    const int64_t offset = atomic_load(&s->card->event_offset_ns);
    const int64_t cost = pair - s->host_ns > offset ? pair - s->host_ns - offset : 0;
    /* Nobody else's slices are inside when it was our turn all the while. */
    const bool alone = s->ours || atomic_load_explicit(&s->card->alone, memory_order_relaxed);
    hami_log(HAMI_LOG_ALL, "launch %u of %llx: pair %lld ns, charged %lld", s->number,
             (unsigned long long)atomic_load(&s->cost->key), (long long)pair, (long long)s->charged_ns);
    hami_budget_correct(&s->card->purse, hami_cost_learn(s->cost, s->number, cost, s->charged_ns, alone));
}

bool hami_fence(hami_card *card, CUstream stream)
{
    pthread_mutex_lock(&busy);
    bench *b = bench_now(card);
    const bool marked = b != NULL && USE(cuEventRecord, b->fence, stream) == CUDA_SUCCESS;
    pthread_mutex_unlock(&busy);
    return marked;
}

bool hami_fence_passed(hami_card *card)
{
    pthread_mutex_lock(&busy);
    bench *b = bench_now(card);
    const bool passed = b == NULL || USE(cuEventQuery, b->fence) != CUDA_ERROR_NOT_READY;
    pthread_mutex_unlock(&busy);
    return passed;
}

static void read_all(bench *b)
{
    for (int i = 0; i < WAITING; i++) {
        if (b->samples[i].pending)
            read_one(&b->samples[i]);
    }
}

void hami_calibrate(hami_card *card)
{
    CUcontext context = NULL;
    if (!atomic_load_explicit(&card->alone, memory_order_relaxed) || pthread_mutex_trylock(&busy) != 0)
        return;
    bench *b = USE(cuCtxGetCurrent, &context) == CUDA_SUCCESS && context != NULL ? bench_now(card) : NULL;
    if (b != NULL && hami_now_ns() > b->calibrate_ns) {
        /* What was launched so far is short and measured: give it the time to end. What this costs is caught up later. */
        hami_sleep_coarse_ns(DRAIN_NS);
        read_all(b);
        bool idle = true;
        for (int i = 0; i < WAITING; i++)
            idle &= !b->samples[i].pending;
        if (idle)
            prepare(b, card, context);
        else
            b->calibrate_ns = hami_now_ns() + RETRY_NS;
    }
    pthread_mutex_unlock(&busy);
}

/* ---- measurements ---- */

void hami_samples_read(void)
{
    if (pthread_mutex_trylock(&busy) != 0)
        return;
    for (int i = 0; i < CONTEXTS; i++) {
        if (benches[i].context != NULL)
            read_all(&benches[i]);
    }
    pthread_mutex_unlock(&busy);
}

hami_sample *hami_sample_begin(hami_card *card, hami_cost *cost, CUstream stream, bool gated, uint32_t number,
                               int64_t charged_ns)
{
    if (pthread_mutex_trylock(&busy) != 0)
        return NULL;
    bench *b = bench_now(card);
    hami_sample *s = NULL;
    for (int i = 0; b != NULL && i < WAITING && s == NULL; i++) {
        if (!b->samples[i].pending)
            s = &b->samples[i];
    }
    if (s == NULL) {
        if (b != NULL)
            read_all(b);
        pthread_mutex_unlock(&busy);
        return NULL;
    }
    s->card = card;
    s->cost = cost;
    s->stream = stream;
    s->charged_ns = charged_ns;
    s->number = number;
    s->spoilt = false;
    s->ours = hami_turn_ours(&card->pacer);
    s->ticket = 0;
    if (gated && b->word != NULL) {
        s->ticket = ++tickets;
        atomic_store(&closed_ticket, s->ticket);
        atomic_store(&closed_since_ns, hami_now_ns());
        atomic_store(&closed_word, b->word);
        hami_watch_gate();
        if (USE(cuStreamWaitValue32_v2, stream, b->word_device, s->ticket, CU_STREAM_WAIT_VALUE_GEQ) != CUDA_SUCCESS)
            s->spoilt = true;
    }
    if (USE(cuEventRecord, s->start, stream) != CUDA_SUCCESS)
        s->spoilt = true;
    s->host_ns = s->ticket != 0 ? 0 : hami_now_ns();
    return s;
}

void hami_sample_end(hami_sample *s, bool launched)
{
    if (s->ticket == 0)
        s->host_ns = hami_now_ns() - s->host_ns;
    const bool ended = USE(cuEventRecord, s->end, s->stream) == CUDA_SUCCESS;
    if (s->ticket != 0) {
        open_gate(atomic_load(&closed_word), s->ticket);
        atomic_store(&closed_word, NULL);
        s->spoilt |= atomic_load(&forced_ticket) == s->ticket;
    }
    s->pending = ended && launched && !s->spoilt;
    if (s->pending)
        atomic_fetch_add_explicit(&s->cost->in_flight, 1, memory_order_relaxed);
    pthread_mutex_unlock(&busy);
}
