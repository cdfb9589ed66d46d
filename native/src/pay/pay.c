/* See pay.h. */
#include "pay/pay.h"

#include <pthread.h>
#include <sys/mman.h>

#include "price/bulk.h"
#include "price/burst.h"
#include "pay/buy.h"
#include "pay/capture.h"
#include "price/cost.h"
#include "price/sample.h"
#include "pay/lane.h"
#include "prim/prim.h"
#include "pay/yield.h"

enum {
    PATIENCE_NS = 100 * 1000 * 1000, /* longest wait for the figures of an unknown key: it may depend on a later launch */
    LOOK_NS = 20 * 1000,
    KEEP_OUT_NS = 15 * 1000 * 1000,
    KEEP_OUT_BRISK_NS = 100 * 1000,
    PROBATION = 3 /* figures before an unknown key may have several launches in flight */
};

static _Atomic(hami_cost *) table;

/* What launches of kernels share for which there is no more room. */
static uint64_t crowd(uint64_t card)
{
    return hami_cost_key(0, 0, card);
}

static void make_room_for_the_crowd(hami_cost *all)
{
    for (uint64_t card = 0; card < HAMI_MAX_CARDS; card++)
        hami_cost_find(all, crowd(card));
}

static hami_cost *costs(void)
{
    hami_cost *keys = atomic_load_explicit(&table, memory_order_acquire);
    if (keys == NULL) {
        const size_t bytes = HAMI_COST_KEYS * sizeof *keys;
        void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED)
            return NULL;
        make_room_for_the_crowd(fresh);
        if (!atomic_compare_exchange_strong(&table, &keys, fresh))
            munmap(fresh, bytes);
        keys = atomic_load(&table);
    }
    return keys;
}

/* The key's figures, made if need be; where the table is full of the function alone, or of all that have none. NULL: none at all. */
static hami_cost *cost_of(const hami_work *w, hami_card *card)
{
    hami_cost *all = costs();
    if (all == NULL)
        return NULL;
    const uint64_t index = (uint64_t)(card - hami_state.cards);
    hami_cost *cost = hami_cost_find(all, hami_cost_key(w->what, w->amount, index));
    if (cost == NULL)
        cost = hami_cost_find(all, hami_cost_key(w->what, 0, index));
    return cost != NULL ? cost : hami_cost_find(all, crowd(index));
}

/* An unknown key: wait for the figures of its earlier launches, so that a thousand long kernels are not queued unseen. */
static void probation(hami_cost *cost)
{
    const int64_t until = hami_now_ns() + PATIENCE_NS;
    while (atomic_load(&cost->samples) < PROBATION && atomic_load(&cost->in_flight) > 0 && !hami_capturing() && hami_now_ns() < until) {
        hami_samples_read();
        if (atomic_load(&cost->in_flight) > 0)
            hami_sleep_until_ns(hami_now_ns() + LOOK_NS);
    }
}

/*
 * A key with hardly any figures: waits for them. A grid not seen yet of a function seen before has that one's price to begin with, and
 * is loaded, so a gate is safe: then `*known` becomes true.
 */
static int64_t price_of_new(hami_cost *cost, const hami_work *w, const hami_card *card, bool *known)
{
    int64_t price = atomic_load_explicit(&cost->price_ns, memory_order_relaxed);
    hami_cost *family = hami_cost_find(costs(), hami_cost_key(w->what, 0, (uint64_t)(card - hami_state.cards)));
    if (family != NULL) {
        *known |= atomic_fetch_add_explicit(&family->launches, 1, memory_order_relaxed) > 0;
        if (price == 0)
            price = atomic_load_explicit(&family->price_ns, memory_order_relaxed);
        else
            atomic_store_explicit(&family->price_ns, price, memory_order_relaxed);
    }
    probation(cost);
    return price;
}

/* Launches come from several streams: what else of ours runs beside a kernel would be in its measurement. */
static void note_stream(hami_card *card, CUstream stream)
{
    const uintptr_t ours = stream == CU_STREAM_PER_THREAD ? (uintptr_t)&hami_mine : (uintptr_t)stream + 1;
    const uintptr_t last = atomic_load_explicit(&card->last_stream, memory_order_relaxed);
    if (last == ours)
        return;
    atomic_store_explicit(&card->last_stream, ours, memory_order_relaxed);
    if (last != 0)
        atomic_store_explicit(&card->crowded_ns, hami_now_ns(), memory_order_relaxed);
}

static bool crowded(const hami_card *card)
{
    return hami_now_ns() - atomic_load_explicit(&card->crowded_ns, memory_order_relaxed) < HAMI_CROWDED_NS;
}

/* Takes the price out of the lane or the purse, buying what lacks. */
static void spend(hami_card *card, hami_lane *lane, int64_t price_ns, CUstream stream)
{
    int64_t need = 0;
    if (lane != NULL && hami_mine.credit_ns >= price_ns)
        hami_mine.credit_ns -= price_ns;
    else
        need = hami_purse_spend(&card->purse, price_ns);
    if (need > 0 || atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed) < 0)
        hami_buy(card, need, price_ns > need ? price_ns - need : 0, stream);
    const int64_t most = crowded(card) ? HAMI_LANE_CROWDED_NS : HAMI_LANE_NS; /* several threads: each finds something there */
    if (lane != NULL && price_ns <= most / 4 && hami_mine.credit_ns < price_ns)
        hami_mine.credit_ns += hami_purse_take(&card->purse, most);
}

/*
 * Nothing of ours may run beside a short kernel that is being measured; it is over in a moment, and never waited for for long. Whoever measures
 * may need the core that we would spin on.
 */
static void keep_out(void)
{
    if (!atomic_load_explicit(&hami_hot.measuring, memory_order_relaxed))
        return;
    const int64_t begun = hami_now_ns();
    int64_t now = begun;
    for (; atomic_load_explicit(&hami_hot.measuring, memory_order_acquire) && now < begun + KEEP_OUT_NS; now = hami_now_ns()) {
        if (now < begun + KEEP_OUT_BRISK_NS)
            hami_relax();
        else
            hami_sleep_until_ns(now + LOOK_NS);
    }
}

static bool well_known(const hami_cost *cost)
{
    return atomic_load_explicit(&cost->samples, memory_order_relaxed) >= HAMI_COST_RING;
}

static bool rests(const hami_card *card, const hami_cost *cost)
{
    hami_sample_run_begins(card, cost);
    return well_known(cost) && hami_sample_rests() && !hami_sample_in_run(card, cost);
}

/* Counts the launch, and along with it what the lane can pay for later; its number when it is due to be measured. */
static uint32_t count(hami_lane *lane, const hami_work *w, hami_cost *cost, int64_t price_ns)
{
    uint32_t run = lane == NULL || hami_mine.credit_ns < price_ns ? 0 : HAMI_LANE_RUN;
    if (lane != NULL)
        hami_lane_drop(lane, w->what, w->amount); /* first: what it had counted along is not in the number then */
    const uint32_t number = hami_cost_due(cost, price_ns, &run);
    if (run > 0)
        hami_lane_fill(lane, w->what, w->amount, cost, price_ns, run);
    return number;
}

/* Those that the lane counted ahead are none of it. */
static void count_in_bulk(hami_card *card, const hami_work *w, hami_cost *cost, int64_t price)
{
    hami_lane *lane = hami_lane_take(card);
    if (lane != NULL)
        hami_lane_drop(lane, w->what, w->amount);
    hami_bulk_counted(cost, price, hami_cost_want(cost, price));
}

enum { SAMPLED_BURSTS = 32 }; /* of so many bursts the first launch of one is measured */

/* Its price is checked where nothing of ours is on the card, and that of an unknown key at once. NULL: not measured. */
static struct hami_sample *measure_in_burst(hami_card *card, hami_cost *cost, CUstream stream, bool gated, int64_t price,
                                            hami_burst_part part)
{
    static _Atomic uint32_t firsts;
    const bool fresh = atomic_load_explicit(&cost->samples, memory_order_relaxed) < PROBATION;
    if (!fresh && (part != HAMI_BURST_FIRST || atomic_fetch_add(&firsts, 1) % SAMPLED_BURSTS != 0))
        return NULL;
    return hami_sample_begin(card, cost, stream, gated, hami_cost_want(cost, price), price);
}

static struct hami_sample *pay(const hami_work *w, hami_card *card, bool elsewhere)
{
    if (card == NULL || hami_captured(w->stream))
        return NULL;
    if (!hami_bulk_mine())
        keep_out();
    const CUstream stream = w->per_thread && w->stream == NULL ? CU_STREAM_PER_THREAD : w->stream;
    hami_yield(card, stream);
    const bool limited = atomic_load_explicit(&card->percent, memory_order_relaxed) < 100;
    hami_cost *cost = limited ? cost_of(w, card) : NULL;
    if (cost == NULL)
        return NULL;
    note_stream(card, stream);
    bool known = atomic_load_explicit(&cost->launches, memory_order_relaxed) > 0;
    const bool fresh = atomic_load_explicit(&cost->samples, memory_order_relaxed) < PROBATION;
    if (!well_known(cost))
        atomic_store_explicit(&card->learning_ns, hami_now_ns(), memory_order_relaxed);
    const int64_t price =
        fresh ? price_of_new(cost, w, card, &known) : atomic_load_explicit(&cost->price_ns, memory_order_relaxed);
    if (hami_bulk_mine() && hami_bulk_takes(card, w->waits || elsewhere ? NULL : cost, stream, price)) {
        count_in_bulk(card, w, cost, price);
        return NULL;
    }
    if (!elsewhere && hami_burst_goes(card, crowded(card), price)) {
        const hami_burst_part part = hami_burst_join(card, stream, price);
        if (part != HAMI_BURST_NONE)
            return measure_in_burst(card, cost, stream, known && !w->waits, price, part);
    }
    hami_lane *lane = elsewhere ? NULL : hami_lane_take(card);
    spend(card, lane, price, stream);
    const uint32_t number = count(lane, w, cost, price);
    if (number == 0 || hami_capturing() || rests(card, cost))
        return NULL;
    if (known && !w->waits && !elsewhere && hami_bulk_wanted(card, cost, price)) {
        const int64_t ahead_ns = hami_bulk_pays_ns(price);
        spend(card, NULL, ahead_ns, stream);
        hami_bulk_begin(card, cost, stream, price, number, ahead_ns);
        return NULL;
    }
    if (crowded(card) && hami_queued_before_ns(card, price) > 0 && hami_cost_postpone(cost, number))
        return NULL;
    /* A gate closed around the first launch of a function deadlocks: loading it waits for the card. */
    return hami_sample_begin(card, cost, stream, known && !w->waits, number, price);
}

/*
 * Copies go where their stream is, whatever context is current. Such a one is paid for, and measured, with the stream's context current, past the hooks
 * that follow a thread's: so it has no lane, and is in no burst and no bulk.
 */
static struct hami_sample *pay_anywhere(const hami_work *w)
{
    CUcontext here = NULL, there = NULL;
    const bool named = w->stream != NULL && w->stream != CU_STREAM_LEGACY && w->stream != CU_STREAM_PER_THREAD;
    const bool asked = named && USE(cuStreamGetCtx, w->stream, &there) == CUDA_SUCCESS && USE(cuCtxGetCurrent, &here) == CUDA_SUCCESS;
    const bool entered = asked && there != here && USE(cuCtxSetCurrent, there) == CUDA_SUCCESS;
    hami_card *now = hami_card_now(), *card = w->card != NULL && now != NULL ? w->card : now;
    struct hami_sample *sample = pay(w, card, entered || card != now);
    if (entered)
        USE(cuCtxSetCurrent, here);
    return sample;
}

struct hami_sample *hami_pay(const hami_work *w)
{
    return w->anywhere && hami_state.card_count > 1 ? pay_anywhere(w) : pay(w, hami_card_now(), false);
}

CUresult hami_paid(struct hami_sample *sample, CUresult result)
{
    if (sample != NULL)
        hami_sample_end(sample, result == CUDA_SUCCESS);
    hami_burst_made();
    hami_bulk_made();
    return result;
}
