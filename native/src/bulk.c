/* See bulk.h. */
#include "bulk.h"

#include "bench.h"
#include "capture.h"
#include "gate.h"
#include "log.h"
#include "prim/prim.h"

enum {
    LEAST = 8, /* launches; fewer tell no more than pairs do */
    KEYS = 8,
    GATE_NS = 150 * 1000,
    AGAIN_NS = 100 * 1000 * 1000,
    SELDOM_NS = 500 * 1000 * 1000,
    SOON = 4,                    /* measurements until they become seldom */
    MOST_FAILED = 4,             /* each failure in a row doubles the pause, so often */
    LOST_NS = 50 * 1000 * 1000,  /* one whose thread has not come back for so long is over */
    HOLD_NS = 3 * 1000 * 1000,
    WRONG_MOST_NS = 1500         /* a price that is wrong by more is wrong for another reason */
};

typedef struct {
    hami_cost *cost;
    uint32_t number;  /* of its last launch */
    int64_t total_ns; /* what all up to that were charged */
} counted;

/* The one under way. Its thread alone touches it, but for `serial`; 0 there: none. */
static struct {
    _Atomic uint32_t serial;
    _Atomic int64_t begun_ns;
    hami_bench *bench;
    hami_card *card;
    CUstream stream;
    uint32_t ticket;
    int launches, keys;
    counted of[KEYS];
    int64_t prices_ns, prepaid_ns;
} bulk;

static _Atomic int64_t again_ns;
static _Atomic uint32_t last_serial;
static int done, failed; /* under hami_bench_busy */
static __thread uint32_t mine __attribute__((tls_model("initial-exec")));

bool hami_bulk_under_way(void)
{
    uint32_t serial = atomic_load_explicit(&bulk.serial, memory_order_acquire);
    if (serial != 0 && hami_now_ns() > atomic_load(&bulk.begun_ns) + LOST_NS)
        atomic_compare_exchange_strong(&bulk.serial, &serial, 0);
    return atomic_load(&bulk.serial) != 0;
}

bool hami_bulk_mine(void)
{
    return mine != 0 && atomic_load_explicit(&bulk.serial, memory_order_relaxed) == mine;
}

void hami_bulk_forced(void)
{
    if (hami_bulk_under_way())
        atomic_store(&hami_hot.measuring, false);
}

void hami_bulk_forget(const hami_bench *bench)
{
    if (bench == NULL || bulk.bench == bench)
        atomic_store(&bulk.serial, 0);
}

bool hami_bulk_wanted(const hami_card *card, const hami_cost *cost, int64_t price_ns)
{
    const int64_t now = hami_now_ns();
    return price_ns > 0 && price_ns < HAMI_COST_SHORT_NS && now >= atomic_load(&again_ns) && hami_cost_calm(cost) &&
           atomic_load(&card->alone) && atomic_load(&card->event_offset_ns) > 0 &&
           now - atomic_load(&card->crowded_ns) > HAMI_CROWDED_NS && !hami_bulk_under_way();
}

void hami_bulk_counted(hami_cost *cost, int64_t price_ns, uint32_t number)
{
    int i = 0;
    while (i < bulk.keys && bulk.of[i].cost != cost)
        i++;
    bulk.of[i] = (counted){.cost = cost, .number = number, .total_ns = atomic_load(&cost->charged_ns)};
    bulk.keys = i == bulk.keys ? i + 1 : bulk.keys;
    bulk.prices_ns += price_ns;
    bulk.launches++;
}

/* Under hami_bench_busy. */
static bool close_gate(hami_bench *b, CUstream stream)
{
    bulk.ticket = hami_bench_ticket();
    hami_gate_close(b->word, bulk.ticket);
    return USE(cuStreamWaitValue32_v2, stream, b->word_device, bulk.ticket, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS &&
           USE(cuEventRecord, b->bulk_start, stream) == CUDA_SUCCESS;
}

void hami_bulk_begin(hami_card *card, hami_cost *cost, CUstream stream, int64_t price_ns, uint32_t number, int64_t prepaid_ns)
{
    hami_bench *b = NULL;
    const bool locked = pthread_mutex_trylock(&hami_bench_busy) == 0;
    if (locked && !hami_bulk_under_way())
        b = hami_bench_now(card);
    if (b != NULL && b->word != NULL) {
        bulk.bench = b;
        bulk.card = card;
        bulk.stream = stream;
        bulk.launches = bulk.keys = 0;
        bulk.prices_ns = 0;
        bulk.prepaid_ns = prepaid_ns + price_ns;
        mine = atomic_fetch_add(&last_serial, 1) + 1;
        atomic_store(&bulk.begun_ns, hami_now_ns());
        atomic_store(&hami_hot.measuring, true);
        atomic_store(&bulk.serial, mine);
        close_gate(b, stream);
        hami_bulk_counted(cost, price_ns, number);
    } else {
        hami_budget_correct(&card->purse, -prepaid_ns);
    }
    if (locked)
        pthread_mutex_unlock(&hami_bench_busy);
}

/* ---- the end ---- */

/* Nothing may be queued behind what is measured until it is through; it is, in a moment. */
static bool passed(CUevent end)
{
    const int64_t until = hami_now_ns() + HOLD_NS + 2 * bulk.prices_ns;
    while (!hami_capturing() && hami_now_ns() < until) {
        if (USE(cuEventQuery, end) != CUDA_ERROR_NOT_READY)
            return true;
        hami_relax();
    }
    return false;
}

/* Under hami_bench_busy. How much too high the prices were, a launch; false: that cannot be said. */
static bool wrong_by(int64_t *wrong_ns)
{
    const int64_t pair = hami_bench_elapsed(bulk.bench->bulk_start, bulk.bench->bulk_end);
    const int64_t took = pair - atomic_load(&bulk.card->event_offset_ns);
    *wrong_ns = (bulk.prices_ns - took) / bulk.launches;
    hami_log(HAMI_LOG_ALL, "%d launches in bulk: pair %lld ns, charged %lld", bulk.launches, (long long)pair, (long long)bulk.prices_ns);
    return pair > 0 && *wrong_ns < WRONG_MOST_NS && -*wrong_ns < WRONG_MOST_NS &&
           4 * *wrong_ns < bulk.prices_ns / bulk.launches && -4 * *wrong_ns < bulk.prices_ns / bulk.launches;
}

static void learn(bool measured)
{
    int64_t wrong = 0;
    if (!measured || bulk.launches < LEAST || !wrong_by(&wrong)) {
        failed += failed < MOST_FAILED;
        atomic_store(&again_ns, hami_now_ns() + ((int64_t)AGAIN_NS << failed));
        return;
    }
    const int64_t shift = done < 2 ? wrong : wrong / 2;
    for (int i = 0; i < bulk.keys; i++)
        hami_budget_correct(&bulk.card->purse, hami_cost_shift(bulk.of[i].cost, bulk.of[i].number, bulk.of[i].total_ns, shift));
    failed = 0;
    done++;
    atomic_store(&again_ns, hami_now_ns() + (done < SOON ? AGAIN_NS : SELDOM_NS));
}

static void end(void)
{
    hami_bench *b = bulk.bench;
    const bool marked = !hami_capturing() && USE(cuEventRecord, b->bulk_end, bulk.stream) == CUDA_SUCCESS;
    const bool unforced = hami_gate_open(b->word, bulk.ticket);
    const bool measured = marked && unforced && passed(b->bulk_end);
    pthread_mutex_lock(&hami_bench_busy);
    if (hami_bulk_mine()) {
        learn(measured);
        atomic_store(&bulk.serial, 0);
        atomic_store(&hami_hot.measuring, false);
    }
    pthread_mutex_unlock(&hami_bench_busy);
    hami_budget_correct(&bulk.card->purse, bulk.prices_ns - bulk.prepaid_ns);
    mine = 0;
}

bool hami_bulk_takes(const hami_card *card, const hami_cost *cost, CUstream stream, int64_t price_ns)
{
    int i = 0;
    while (i < bulk.keys && bulk.of[i].cost != cost)
        i++;
    const bool forced = hami_now_ns() > atomic_load(&bulk.begun_ns) + 2 * GATE_NS;
    const bool room = i < KEYS && bulk.launches < HAMI_BULK && bulk.prices_ns + price_ns <= bulk.prepaid_ns;
    const bool fits = room && !forced && !hami_capturing() && cost != NULL && hami_cost_calm(cost) && price_ns > 0 &&
                      card == bulk.card && stream == bulk.stream;
    if (!fits)
        end();
    return fits;
}

void hami_bulk_made(void)
{
    if (hami_bulk_mine() && (bulk.launches == HAMI_BULK || hami_now_ns() > atomic_load(&bulk.begun_ns) + GATE_NS))
        end();
}
