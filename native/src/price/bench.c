/* See bench.h. */
#include "price/bench.h"

#include <pthread.h>
#include <string.h>

#include "pay/lane.h"
#include "price/gate.h"
#include "process/log.h"
#include "prim/prim.h"

enum {
    OFFSET_DEFAULT_NS = 1300, /* H100, H200; used where calibration is not possible */
    OFFSET_MOST_NS = 20000,
    PATIENCE_NS = 5 * 1000 * 1000, /* a gate closed for longer is opened: another thread's call may wait for the card, and the launches for that */
    PAIRS = 16,
    SCATTER_NS = 400, /* a launch */
    FIFTIES = 5
};

hami_bench hami_benches[HAMI_BENCHES];

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(const void *) owner; /* thread that has it, by something of its own */
static int owner_stay;              /* of that thread, to be restored; */
static sigset_t owner_mask;         /* likewise, */
static bool owner_masked;           /* where it was changed */
static uint32_t last_ticket;        /* these under the lock */

static void entered(int before)
{
    atomic_store_explicit(&owner, &hami_mine, memory_order_relaxed);
    owner_stay = before;
}

bool hami_bench_try(void)
{
    const int before = hami_stay();
    if (pthread_mutex_trylock(&busy) == 0) {
        entered(before);
        return true;
    }
    hami_stayed(before);
    return false;
}

bool hami_bench_enter(void)
{
    if (atomic_load_explicit(&owner, memory_order_relaxed) == &hami_mine)
        return false;
    const int before = hami_stay();
    pthread_mutex_lock(&busy);
    entered(before);
    return true;
}

void hami_bench_undisturbed(void)
{
    if (!owner_masked)
        hami_undisturbed_begin(&owner_mask);
    owner_masked = true;
}

void hami_bench_leave(void)
{
    sigset_t mask;
    const int before = owner_stay;
    const bool masked = owner_masked;
    if (masked)
        mask = owner_mask;
    owner_masked = false;
    atomic_store_explicit(&owner, NULL, memory_order_relaxed);
    pthread_mutex_unlock(&busy);
    hami_stayed(before);
    if (masked)
        hami_undisturbed_end(&mask); /* last: what has waited comes here, and may not come back */
}

uint32_t hami_bench_ticket(void)
{
    return ++last_ticket;
}

/* ---- calibration ---- */

/*
 * Runs for some 4 us, as what is measured does: how long an empty kernel takes in a queue is the pace at which the card fetches launches, and
 * that is not the same from one time to the next (1.27 to 1.57 us on an H200).
 */
static const char yardstick_text[] =
    ".version 6.4\n.target sm_50\n.address_size 64\n.visible .entry hami_yardstick()\n{\n"
    " .reg .u32 %n; .reg .f32 %f; .reg .pred %p;\n mov.u32 %n, 400;\n mov.f32 %f, 0f3F800000;\n"
    "again:\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n"
    " sub.u32 %n, %n, 1;\n setp.gt.u32 %p, %n, 0;\n @%p bra again;\n"
    " setp.eq.f32 %p, %f, 0f3F8CCCCD;\n @%p trap;\n ret;\n}\n";

static CUresult launch_yardstick(CUfunction f, CUstream stream)
{
    return BEHIND(cuLaunchKernel, f, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
}

int64_t hami_bench_elapsed(CUevent start, CUevent end)
{
    float ms = 0;
    return USE(cuEventElapsedTime, &ms, start, end) == CUDA_SUCCESS ? (int64_t)((double)ms * 1e6) : -1;
}

/* Time of `count` launches of the yardstick queued behind a gate. */
static int64_t time_launches(hami_bench *b, CUfunction f, CUstream stream, int count)
{
    hami_sample *s = &b->own;
    const uint32_t ticket = hami_bench_ticket();
    hami_gate_close(b->word, ticket, PATIENCE_NS);
    USE(cuStreamWaitValue32_v2, stream, b->word_device, ticket, CU_STREAM_WAIT_VALUE_GEQ);
    USE(cuEventRecord, s->start, stream);
    for (int i = 0; i < count; i++)
        launch_yardstick(f, stream);
    USE(cuEventRecord, s->end, stream);
    const bool unforced = hami_gate_open(b->word, ticket);
    if (USE(cuStreamSynchronize, stream) != CUDA_SUCCESS || !unforced)
        return -1;
    return hami_bench_elapsed(s->start, s->end);
}

/*
 * The mean of `times` measurements, ns. A pair of the same launch is either of two values 0.2 us apart, so the median would be one of them
 * by chance; what is further above the least was disturbed, and is left out.
 */
static int64_t typical(hami_bench *b, CUfunction f, CUstream stream, int count, int times)
{
    int64_t values[PAIRS], least = INT64_MAX, sum = 0;
    for (int i = 0; i < times; i++) {
        values[i] = time_launches(b, f, stream, count);
        if (values[i] >= 0 && values[i] < least)
            least = values[i];
    }
    int kept = 0;
    for (int i = 0; i < times; i++) {
        if (values[i] >= least && values[i] <= least + (int64_t)count * SCATTER_NS) {
            sum += values[i];
            kept++;
        }
    }
    return kept == 0 ? -1 : sum / kept;
}

/* pair(n) = n * queued + offset, so the offset is what one pair shows beyond a 49th of the growth to 50. -1: cannot say. */
static int64_t measure_offset(hami_bench *b)
{
    if (b->yardstick == NULL || b->side == NULL)
        return -1;
    const int64_t one = typical(b, b->yardstick, b->side, 1, PAIRS);
    const int64_t fifty = typical(b, b->yardstick, b->side, 50, FIFTIES);
    hami_log(HAMI_LOG_DECISION, "one launch %lld ns, fifty %lld", (long long)one, (long long)fifty);
    return one - (fifty - one) / 49;
}

static int64_t middle(int64_t a, int64_t b, int64_t c)
{
    const int64_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* With captures relaxed. */
static void calibrate(hami_bench *b, hami_card *card)
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

static void make_yardstick(hami_bench *b)
{
    CUmodule module = NULL;
    if (b->word == NULL || BEHIND(cuModuleLoadData, &module, yardstick_text) != CUDA_SUCCESS ||
        USE(cuModuleGetFunction, &b->yardstick, module, "hami_yardstick") != CUDA_SUCCESS ||
        USE(cuStreamCreate, &b->side, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS ||
        launch_yardstick(b->yardstick, b->side) != CUDA_SUCCESS || USE(cuStreamSynchronize, b->side) != CUDA_SUCCESS)
        b->yardstick = NULL;
}

/* ---- making one ---- */

static void make_word(hami_bench *b)
{
    void *host = NULL;
    if (USE(cuMemHostAlloc, &host, 64, CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE) != CUDA_SUCCESS ||
        USE(cuMemHostGetDevicePointer_v2, &b->word_device, host, 0) != CUDA_SUCCESS || hami_use.cuStreamWaitValue32_v2 == NULL)
        return;
    b->word = host;
    *b->word = last_ticket;
}

static bool make_event(CUevent *out, unsigned int flags)
{
    if (USE(cuEventCreate, out, flags) == CUDA_SUCCESS)
        return true;
    *out = NULL;
    return false;
}

static bool make_events(hami_bench *b)
{
    bool made = make_event(&b->own.start, 0) && make_event(&b->own.end, 0);
    for (int i = 0; made && i < HAMI_BULK_MARKS; i++)
        made = make_event(&b->bulk[i], 0);
    for (int i = 0; made && i < HAMI_FENCES; i++)
        made = make_event(&b->fences[i], CU_EVENT_DISABLE_TIMING);
    for (int i = 0; made && i < HAMI_BENCH_SAMPLES; i++)
        made = make_event(&b->samples[i].start, 0) && make_event(&b->samples[i].end, 0);
    return made;
}

static void give_event(CUevent *event)
{
    if (*event != NULL)
        USE(cuEventDestroy_v2, *event);
    *event = NULL;
}

/* All or none: each launch tries again, so some of each try would soon be many. */
static bool fill(hami_bench *b)
{
    if (make_events(b))
        return true;
    give_event(&b->own.start);
    give_event(&b->own.end);
    for (int i = 0; i < HAMI_BULK_MARKS; i++)
        give_event(&b->bulk[i]);
    for (int i = 0; i < HAMI_FENCES; i++)
        give_event(&b->fences[i]);
    for (int i = 0; i < HAMI_BENCH_SAMPLES; i++) {
        give_event(&b->samples[i].start);
        give_event(&b->samples[i].end);
    }
    return false;
}

/* Makes it when there is a `context`, and calibrates it. */
static void prepare(hami_bench *b, hami_card *card, CUcontext context)
{
    hami_bench_undisturbed();
    /* Another thread may be capturing with the strict mode, which forbids what follows to everybody. */
    const int mode = hami_relaxed_begin();
    if (context != NULL && fill(b)) {
        b->context = context;
        make_word(b);
        make_yardstick(b);
    }
    if (b->context != NULL)
        calibrate(b, card);
    hami_relaxed_end(mode);
}

void hami_bench_calibrate(hami_bench *b, hami_card *card)
{
    prepare(b, card, NULL);
}

hami_bench *hami_bench_now(hami_card *card)
{
    CUcontext context = NULL;
    hami_bench *empty = NULL;
    if (USE(cuCtxGetCurrent, &context) != CUDA_SUCCESS || context == NULL)
        return NULL;
    for (int i = 0; i < HAMI_BENCHES; i++) {
        if (hami_benches[i].context == context)
            return hami_benches[i].leaving ? NULL : &hami_benches[i];
        if (hami_benches[i].context == NULL && empty == NULL)
            empty = &hami_benches[i];
    }
    if (empty == NULL)
        return NULL;
    hami_card *own = hami_card_now(); /* what is paid for here may be another card's */
    memset(empty, 0, sizeof *empty);
    prepare(empty, own == NULL ? card : own, context);
    return empty->context == NULL ? NULL : empty;
}

bool hami_bench_find(hami_card *card, hami_bench **bench)
{
    *bench = hami_bench_now(card);
    if (!owner_masked || *bench == NULL)
        return true;
    hami_bench_leave();
    if (!hami_bench_try())
        return false;
    *bench = hami_bench_now(card);
    return true;
}
