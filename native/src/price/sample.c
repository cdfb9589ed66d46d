/* See sample.h. */
#include "price/sample.h"

#include "price/bench.h"
#include "price/bulk.h"
#include "price/gate.h"
#include "pay/capture.h"
#include "pay/lane.h"
#include "process/log.h"
#include "prim/prim.h"

enum {
    GATE_PATIENCE_NS = 200000, /* a gate closed for longer is opened: somebody else filled the queue behind it */
    DRAIN_NS = 1500 * 1000,
    RETRY_NS = 50 * 1000 * 1000,
    HOLD_NS = 200 * 1000,       /* kernels shorter than this are measured with nothing behind them */
    CROWDED_HOLD_NS = 5 * 1000 * 1000, /* and these where launches come from several streams */
    HOLD_MOST_NS = 2000 * 1000,
    HOLD_QUEUE_NS = 20 * 1000 * 1000, /* no longer is waited for what is queued before it */
    NOISE_NS = 1000,
    REST_TIMES = 400, /* one part in so many of a program's time is spent on measuring */
    REST_MOST_NS = 400 * 1000 * 1000, /* but a launch that takes longer than before is seen as soon */
    AHEAD_NS = 100 * 1000, /* more than this queued before it, and only short kernels are waited for: a host that must run ahead falls behind */
    SHARED_RUN_MOST_NS = 100 * 1000 * 1000,
    SHARED_RUN_AGAIN_NS = 500 * 1000 * 1000
};

static _Atomic int64_t rest_until_ns;

/*
 * Launches that were queued behind it make a short kernel's pair up to 0.8 us longer, now and then: a sample that is so much above the
 * price says nothing.
 */
static bool doubtful(const hami_sample *s, int64_t cost_ns)
{
    return s->charged_ns > 0 && s->charged_ns < HOLD_NS && atomic_load(&s->cost->samples) >= HAMI_COST_LEARNING &&
           cost_ns > s->charged_ns && cost_ns < s->charged_ns + NOISE_NS;
}

static void read_one(hami_sample *s)
{
    const CUresult state = USE(cuEventQuery, s->end);
    if (state == CUDA_ERROR_NOT_READY)
        return;
    s->pending = false;
    atomic_fetch_sub_explicit(&s->cost->in_flight, 1, memory_order_relaxed);
    const int64_t pair = state == CUDA_SUCCESS && !s->spoilt ? hami_bench_elapsed(s->start, s->end) : -1;
    if (pair < 0)
        return;
    const int64_t offset = atomic_load(&s->card->event_offset_ns);
    const int64_t cost = pair - s->host_ns > offset ? pair - s->host_ns - offset : 0;
    if (!s->quiet && doubtful(s, cost))
        return;
    const bool alone = atomic_load_explicit(&s->card->alone, memory_order_relaxed);
    const hami_cost_trust trust = alone     ? s->crowded ? HAMI_COST_CROWDED : HAMI_COST_ALONE
                                  : s->ours ? HAMI_COST_OURS
                                            : HAMI_COST_SHARED;
    const int processes = s->crowded ? 0 : atomic_load_explicit(&s->card->processes, memory_order_relaxed);
    const int64_t owed = trust == HAMI_COST_SHARED ? hami_cost_learn_beside(s->cost, s->number, cost, s->total_ns, processes)
                                                   : hami_cost_learn(s->cost, s->number, cost, s->total_ns, trust);
    hami_log(HAMI_LOG_ALL, "launch %u of %llx: pair %lld ns, charged %lld, owed %lld", s->number,
             (unsigned long long)atomic_load(&s->cost->key), (long long)pair, (long long)s->charged_ns, (long long)owed);
    hami_budget_correct(&s->card->purse, owed);
}

static void read_all(hami_bench *b)
{
    for (int i = 0; i < HAMI_BENCH_SAMPLES; i++) {
        if (b->samples[i].pending)
            read_one(&b->samples[i]);
    }
}

/* What was launched so far is short and measured: it is given the time to end. What this costs is caught up later. */
static void calibrate_anew(hami_bench *b, hami_card *card)
{
    bool idle = true;
    hami_bench_undisturbed();
    hami_sleep_coarse_ns(DRAIN_NS);
    read_all(b);
    for (int i = 0; i < HAMI_BENCH_SAMPLES; i++)
        idle &= !b->samples[i].pending;
    if (idle)
        hami_bench_calibrate(b, card);
    else
        b->calibrate_ns = hami_now_ns() + RETRY_NS;
}

void hami_calibrate(hami_card *card)
{
    CUcontext context = NULL;
    if (!atomic_load_explicit(&card->alone, memory_order_relaxed) || hami_card_now() != card || !hami_bench_try())
        return;
    hami_bench *b = USE(cuCtxGetCurrent, &context) == CUDA_SUCCESS && context != NULL ? hami_bench_now(card) : NULL;
    if (b != NULL && hami_now_ns() > b->calibrate_ns && !hami_bulk_under_way())
        calibrate_anew(b, card);
    hami_bench_leave();
}

/* ---- measurements ---- */

void hami_samples_read(void)
{
    /* While another thread captures with the strict mode, to ask an event is an error, and spoils the capture; it may begin meanwhile. */
    if (hami_capturing() || !hami_bench_try())
        return;
    const int mode = hami_relaxed_begin();
    for (int i = 0; i < HAMI_BENCHES; i++) {
        if (hami_benches[i].context != NULL && !hami_benches[i].leaving)
            read_all(&hami_benches[i]);
    }
    hami_relaxed_end(mode);
    hami_bench_leave();
}

/* Beside others: the key that has its run now, and when the next may begin. */
static struct {
    _Atomic(const hami_cost *) of;
    _Atomic int64_t begun_ns, next_ns;
} shared_run;

static bool by_itself(const hami_card *card)
{
    return atomic_load_explicit(&card->alone, memory_order_relaxed) || hami_turn_ours(&card->pacer);
}

/* Where launches come from several streams, others of ours would be in what nobody waits for. */
static bool runs_help(const hami_card *card, const hami_cost *cost)
{
    return hami_cost_uneven(cost) && hami_now_ns() - atomic_load(&card->crowded_ns) >= HAMI_CROWDED_NS;
}

bool hami_sample_in_run(const hami_card *card, const hami_cost *cost)
{
    return runs_help(card, cost) && (by_itself(card) || atomic_load(&shared_run.of) == cost);
}

void hami_sample_run_begins(const hami_card *card, const hami_cost *cost)
{
    const int64_t now = hami_now_ns();
    const hami_cost *of = atomic_load(&shared_run.of);
    if (!runs_help(card, cost) || by_itself(card) ||
        atomic_load_explicit(&cost->run_left, memory_order_relaxed) != HAMI_COST_RUN - 1)
        return;
    if (of == cost || (of != NULL && now > atomic_load(&shared_run.begun_ns) + SHARED_RUN_MOST_NS)) {
        atomic_store(&shared_run.next_ns, now + SHARED_RUN_AGAIN_NS);
        atomic_store(&shared_run.of, NULL);
    } else if (of == NULL && now > atomic_load(&shared_run.next_ns)) {
        atomic_store(&shared_run.begun_ns, now);
        atomic_store(&shared_run.of, cost);
    }
}

bool hami_sample_rests(void)
{
    return hami_now_ns() < atomic_load_explicit(&rest_until_ns, memory_order_relaxed);
}

static void rest(int64_t begun_ns)
{
    const int64_t now = hami_now_ns(), pause = REST_TIMES * (now - begun_ns);
    atomic_store_explicit(&rest_until_ns, now + (pause < REST_MOST_NS ? pause : REST_MOST_NS), memory_order_relaxed);
}

static hami_sample *free_sample(hami_bench *b)
{
    for (int i = 0; b != NULL && i < HAMI_BENCH_SAMPLES; i++) {
        if (!b->samples[i].pending)
            return &b->samples[i];
    }
    if (b != NULL)
        read_all(b);
    return NULL;
}

/* Other threads keep out, or wait for its figures, from here on: making the bench of a context takes ms. */
static void close_doors(hami_cost *cost, bool held)
{
    atomic_fetch_add(&cost->in_flight, 1);
    atomic_store(&hami_hot.measuring, held);
}

static void open_doors(hami_cost *cost, bool pending)
{
    if (!pending)
        atomic_fetch_sub(&cost->in_flight, 1);
    atomic_store(&hami_hot.measuring, false);
}

int64_t hami_queued_before_ns(hami_card *card, int64_t price_ns)
{
    pthread_mutex_lock(&card->pacing);
    const int64_t queued_until = card->pacer.queue_end_ns;
    pthread_mutex_unlock(&card->pacing);
    const int64_t credit = atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed);
    return queued_until - (credit > 0 ? credit : 0) - price_ns - hami_now_ns();
}

/*
 * Whether its end is to be waited for, so that nothing is queued behind it. What that adds is nothing to a launch of a run, and is left out where the
 * price of one that is not short is known (`doubtful`).
 */
static bool to_be_held(hami_card *card, const hami_cost *cost, int64_t charged_ns, bool crowded)
{
    if (crowded)
        return charged_ns < CROWDED_HOLD_NS;
    if (charged_ns >= HOLD_NS || hami_sample_in_run(card, cost))
        return false;
    return charged_ns < HAMI_COST_SHORT_NS || atomic_load(&cost->samples) < HAMI_COST_RING ||
           hami_queued_before_ns(card, charged_ns) < AHEAD_NS;
}

hami_sample *hami_sample_begin(hami_card *card, hami_cost *cost, CUstream stream, bool gated, uint32_t number,
                               int64_t charged_ns)
{
    if (!hami_bench_try())
        return NULL;
    const int64_t total_ns = atomic_load_explicit(&cost->charged_ns, memory_order_relaxed), begun_ns = hami_now_ns();
    const bool crowded = begun_ns - atomic_load(&card->crowded_ns) < HAMI_CROWDED_NS;
    const bool held = to_be_held(card, cost, charged_ns, crowded);
    close_doors(cost, held);
    hami_bench *b = NULL;
    const bool ours = hami_bulk_under_way() || hami_bench_find(card, &b);
    hami_sample *s = ours ? free_sample(b) : NULL;
    if (s == NULL) {
        open_doors(cost, false);
        if (ours)
            hami_bench_leave();
        return NULL;
    }
    s->begun_ns = begun_ns;
    s->card = card;
    s->cost = cost;
    s->stream = stream;
    s->charged_ns = charged_ns;
    s->total_ns = total_ns;
    s->number = number;
    s->spoilt = s->quiet = false;
    s->crowded = crowded;
    s->held = held;
    s->ours = hami_turn_ours(&card->pacer);
    s->ticket = 0;
    if (gated && b->word != NULL) {
        s->ticket = hami_bench_ticket();
        s->word = b->word;
        hami_gate_close(b->word, s->ticket, GATE_PATIENCE_NS);
        if (USE(cuStreamWaitValue32_v2, stream, b->word_device, s->ticket, CU_STREAM_WAIT_VALUE_GEQ) != CUDA_SUCCESS)
            s->spoilt = true;
    }
    if (USE(cuEventRecord, s->start, stream) != CUDA_SUCCESS)
        s->spoilt = true;
    s->host_ns = s->ticket != 0 ? 0 : hami_now_ns();
    return s;
}

/*
 * Waits for the end of a short kernel that is being measured, so that nothing is queued behind it. Not where much is queued before it, not
 * while others capture, and not for long: it may depend on a later launch.
 */
static void hold(hami_sample *s)
{
    const int64_t begun = hami_now_ns();
    pthread_mutex_lock(&s->card->pacing);
    const int64_t queued_until = s->card->pacer.queue_end_ns;
    pthread_mutex_unlock(&s->card->pacing);
    if (!s->held || queued_until > begun + HOLD_QUEUE_NS)
        return;
    hami_bench_undisturbed();
    const int64_t until = (queued_until > begun ? queued_until : begun) + HOLD_MOST_NS + 2 * s->charged_ns;
    const int mode = hami_relaxed_begin();
    while (!hami_capturing() && hami_now_ns() < until) {
        if (USE(cuEventQuery, s->end) != CUDA_ERROR_NOT_READY) {
            s->quiet = true;
            read_one(s);
            break;
        }
        hami_relax();
    }
    hami_relaxed_end(mode);
}

void hami_sample_end(hami_sample *s, bool launched)
{
    if (s->ticket == 0)
        s->host_ns = hami_now_ns() - s->host_ns;
    const bool ended = USE(cuEventRecord, s->end, s->stream) == CUDA_SUCCESS;
    if (s->ticket != 0)
        s->spoilt |= !hami_gate_open(s->word, s->ticket);
    s->pending = ended && launched && !s->spoilt;
    const bool pending = s->pending;
    if (pending)
        hold(s);
    if (s->held || !hami_sample_in_run(s->card, s->cost))
        rest(s->begun_ns);
    open_doors(s->cost, pending); /* reading it has counted it out */
    hami_bench_leave();
}

#ifdef HAMI_INSIDE
void hami_sample_later(int64_t ns)
{
    atomic_fetch_add(&rest_until_ns, ns);
}
#endif
