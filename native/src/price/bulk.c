/* See bulk.h. Hooks of events that a program records. */
#include "price/bulk.h"

#include <stdlib.h>
#include <string.h>

#include "price/bench.h"
#include "pay/capture.h"
#include "price/gate.h"
#include "process/log.h"
#include "prim/prim.h"

enum {
    KEYS = 44, /* launches of one, at most */
    SHORT_PAYS_NS = 880 * 1000,
    LAST_MARK_NS = 370 * 1000, /* so long after it began a host that is slow marks what it has launched, */
    GATE_NS = 500 * 1000,      /* and then it is over */
    PATIENCE_NS = 600 * 1000,
    AGAIN_NS = 50 * 1000 * 1000,
    SELDOM_NS = 500 * 1000 * 1000,
    TIMES = 7,                   /* of short kernels, of which the middle counts; until there are so many they are soon */
    TIMES_LEAST = 3,
    MEAN_OF = 4,                 /* times that a longer key's figure is a mean of, about */
    MOST_FAILED = 7,             /* each failure in a row doubles the pause, so often */
    LOST_NS = 50 * 1000 * 1000,  /* one whose thread has not come back for so long is over */
    HOLD_NS = 3 * 1000 * 1000,
    LONGEST_NS = 250 * 1000,     /* of longer launches a pair's own error is nothing */
    WRONG_MOST_NS = 2000         /* a price that is wrong by more is wrong for another reason */
};

typedef enum { SHORT, LONG, KINDS } kind;

/*
 * Launches before the first event, from it to the second, from that to the last, or at least so many, and behind that: an event that has launches
 * behind it is seen 0.5 to 0.7 us later than one that has none, as pairs show, so each has some. What the longer stretch shows is still 0.8 us too
 * little on an H200, by comparison with a long queue, for a reason not known: the longer it is, the less that is a launch.
 */
static const struct {
    int warm, few, many, least, behind;
} plans[KINDS] = {[SHORT] = {8, 4, 28, 12, 4}, [LONG] = {2, 1, 7, 3, 2}};

typedef struct {
    hami_cost *cost;
    uint32_t number;  /* of its last launch */
    int64_t total_ns; /* what all up to that were charged */
} counted;

/* Launches up to an event, their prices, and what of these prices was corrected before. */
typedef struct {
    int launches;
    int64_t prices_ns, bias_ns;
} stretch;

/* The one under way. Its thread alone touches it, but for `serial`; 0 there: none. */
static struct {
    _Atomic uint32_t serial;
    _Atomic int64_t begun_ns;
    hami_bench *bench;
    hami_card *card;
    CUstream stream;
    kind kind;
    uint32_t ticket;
    int keys;
    counted of[KEYS];
    stretch all, marks[HAMI_BULK_MARKS]; /* so far; and at each event */
    int marked;
    bool refused;   /* by the driver, at an event */
    bool disturbed; /* by an event of the program's own */
    int64_t prepaid_ns;
} bulk;

static _Atomic int64_t again_ns[KINDS];
static _Atomic uint32_t last_serial;
static int failed[KINDS];           /* these under the bench's lock */
static int done;                    /* of short kernels */
static int64_t wrong_ns[TIMES];     /* what single pairs show too much of those, the last times */
static __thread uint32_t mine __attribute__((tls_model("initial-exec")));

static kind kind_of(int64_t price_ns)
{
    return price_ns < HAMI_COST_SHORT_NS ? SHORT : LONG;
}

int64_t hami_bulk_pays_ns(int64_t price_ns)
{
    const int launches = plans[LONG].warm + plans[LONG].few + plans[LONG].many + plans[LONG].behind;
    return kind_of(price_ns) == SHORT ? SHORT_PAYS_NS : launches * price_ns;
}

bool hami_bulk_under_way(void)
{
    uint32_t serial = atomic_load_explicit(&bulk.serial, memory_order_acquire);
    if (serial != 0 && hami_now_ns() > atomic_load(&bulk.begun_ns) + LOST_NS &&
        atomic_compare_exchange_strong(&bulk.serial, &serial, 0))
        atomic_store(&hami_hot.measuring, false); /* its thread will not: a process that was stopped finds all late */
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
    if ((bench != NULL && bulk.bench != bench) || atomic_exchange(&bulk.serial, 0) == 0)
        return;
    if (bench != NULL)
        hami_gate_open(bench->word, bulk.ticket); /* else who ends the context waits for it */
    atomic_store(&hami_hot.measuring, false);
}

bool hami_bulk_wanted(const hami_card *card, const hami_cost *cost, int64_t price_ns)
{
    const int64_t now = hami_now_ns();
    return price_ns > 0 && price_ns < LONGEST_NS && now >= atomic_load(&again_ns[kind_of(price_ns)]) && hami_cost_calm(cost) &&
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
    bulk.all.prices_ns += price_ns;
    bulk.all.bias_ns += hami_cost_bias(cost);
    bulk.all.launches++;
}

/* Under the bench's lock. */
static bool close_gate(const hami_bench *b, CUstream stream)
{
    bulk.ticket = hami_bench_ticket();
    hami_gate_close(b->word, bulk.ticket, PATIENCE_NS);
    return USE(cuStreamWaitValue32_v2, stream, b->word_device, bulk.ticket, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS;
}

void hami_bulk_begin(hami_card *card, hami_cost *cost, CUstream stream, int64_t price_ns, uint32_t number, int64_t prepaid_ns)
{
    hami_bench *b = NULL;
    const bool outranked = hami_watch_outranks(), locked = outranked && hami_bench_try();
    if (locked && !hami_bulk_under_way())
        b = hami_bench_now(card);
    if (b != NULL && b->word != NULL) {
        bulk.bench = b;
        bulk.card = card;
        bulk.stream = stream;
        bulk.kind = kind_of(price_ns);
        bulk.keys = bulk.marked = 0;
        bulk.disturbed = false;
        bulk.all = (stretch){0};
        bulk.prepaid_ns = prepaid_ns + price_ns;
        mine = atomic_fetch_add(&last_serial, 1) + 1;
        atomic_store(&bulk.begun_ns, hami_now_ns());
        atomic_store(&hami_hot.measuring, true);
        atomic_store(&bulk.serial, mine);
        bulk.refused = !close_gate(b, stream);
        hami_bulk_counted(cost, price_ns, number);
    } else {
        hami_budget_correct(&card->purse, -prepaid_ns);
    }
    if (!outranked)
        atomic_store(&again_ns[kind_of(price_ns)], hami_now_ns() + SELDOM_NS);
    if (locked)
        hami_bench_leave();
}

/* ---- the end ---- */

/* Another thread may end the context, and the events with it, until the lock is ours. */
static void mark(void)
{
    if (!hami_bench_enter())
        return;
    if (hami_bulk_mine()) {
        bulk.refused |= hami_capturing() || USE(cuEventRecord, bulk.bench->bulk[bulk.marked], bulk.stream) != CUDA_SUCCESS;
        bulk.marks[bulk.marked++] = bulk.all;
    }
    hami_bench_leave();
}

/* Nothing may be queued behind what is measured until it is through; it is, in a moment. */
static bool passed(CUevent last)
{
    const int64_t until = hami_now_ns() + HOLD_NS + 2 * bulk.all.prices_ns;
    const int mode = hami_relaxed_begin(); /* another thread may begin to capture meanwhile */
    bool is = false;
    while (!is && !hami_capturing() && hami_now_ns() < until) {
        is = USE(cuEventQuery, last) != CUDA_ERROR_NOT_READY;
        if (!is)
            hami_relax();
    }
    hami_relaxed_end(mode);
    return is;
}

static stretch between(int first)
{
    const stretch *from = &bulk.marks[first], *to = &bulk.marks[first + 1];
    return (stretch){to->launches - from->launches, to->prices_ns - from->prices_ns, to->bias_ns - from->bias_ns};
}

/* What single pairs show too much, a launch; false: that cannot be said. */
static bool wrong_by(int64_t *wrong)
{
    const hami_bench *b = bulk.bench;
    const stretch few = between(0), many = between(1);
    const int64_t few_ns = hami_bench_elapsed(b->bulk[0], b->bulk[1]), many_ns = hami_bench_elapsed(b->bulk[1], b->bulk[2]);
    const int launches = many.launches - few.launches;
    const int64_t prices_ns = many.prices_ns - few.prices_ns, took_ns = many_ns - few_ns;
    hami_log(HAMI_LOG_ALL, "%d launches in bulk: took %lld ns, charged %lld", launches, (long long)took_ns, (long long)prices_ns);
    *wrong = (prices_ns - took_ns + many.bias_ns - few.bias_ns) / launches;
    const int64_t most = WRONG_MOST_NS + bulk.all.prices_ns / bulk.all.launches / 16;
    return few_ns > 0 && many_ns > few_ns && *wrong < most && -*wrong < most;
}

static int by_size(const void *a, const void *b)
{
    const int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

/* The mean of the times of late, a quarter at each end left out. */
static int64_t middle_of_late(void)
{
    int64_t sorted[TIMES], sum = 0;
    const int count = done < TIMES ? done : TIMES, out = (count + 1) / 4;
    memcpy(sorted, wrong_ns, sizeof sorted);
    qsort(sorted, (size_t)count, sizeof sorted[0], by_size);
    for (int i = out; i < count - out; i++)
        sum += sorted[i];
    return sum / (count - 2 * out);
}

/* Single pairs show `wrong` too much of launch `i`'s key. */
static void unbias(int i, int64_t wrong)
{
    const counted *of = &bulk.of[i];
    hami_budget_correct(&bulk.card->purse, hami_cost_unbias(of->cost, of->number, of->total_ns, wrong));
}

/* True: it is known well enough now. */
static bool learn_short(int64_t wrong)
{
    wrong_ns[done++ % TIMES] = wrong;
    for (int i = 0; i < bulk.keys && done >= TIMES_LEAST; i++)
        unbias(i, middle_of_late());
    return done >= TIMES;
}

static bool learn_long(int64_t wrong)
{
    const int64_t before = hami_cost_bias(bulk.of[0].cost);
    const uint32_t times = bulk.of[0].cost->bulks + 1;
    unbias(0, before + (wrong - before) / (times < MEAN_OF ? times : MEAN_OF));
    return times >= MEAN_OF;
}

static void learn(bool measured)
{
    const kind k = bulk.kind;
    const int64_t now = hami_now_ns();
    int64_t wrong = 0;
    if (bulk.disturbed) {
        atomic_store(&again_ns[k], now + AGAIN_NS / 2);
    } else if (!measured || !wrong_by(&wrong)) {
        failed[k] += failed[k] < MOST_FAILED;
        atomic_store(&again_ns[k], now + ((int64_t)AGAIN_NS << failed[k]));
    } else {
        failed[k] = 0;
        atomic_store(&again_ns[k], now + ((k == SHORT ? learn_short(wrong) : learn_long(wrong)) ? SELDOM_NS : AGAIN_NS));
    }
}

static int launches_since_mark(void)
{
    return bulk.all.launches - (bulk.marked == 0 ? 0 : bulk.marks[bulk.marked - 1].launches);
}

/* Where it is no longer ours its gate is open, and the word and the events may have gone with their context. */
static void end(void)
{
    const bool enough = bulk.marked == HAMI_BULK_MARKS && launches_since_mark() >= plans[bulk.kind].behind;
    if (!hami_bench_enter())
        return;
    hami_bench_undisturbed();
    if (hami_bulk_mine()) {
        const hami_bench *b = bulk.bench;
        const bool unforced = hami_gate_open(b->word, bulk.ticket);
        learn(enough && !bulk.refused && !bulk.disturbed && unforced && passed(b->bulk[HAMI_BULK_MARKS - 1]));
        hami_budget_correct(&bulk.card->purse, bulk.all.prices_ns - bulk.prepaid_ns);
        atomic_store(&bulk.serial, 0);
        atomic_store(&hami_hot.measuring, false);
    }
    hami_bench_leave();
    mine = 0;
}

bool hami_bulk_takes(const hami_card *card, const hami_cost *cost, CUstream stream, int64_t price_ns)
{
    int i = 0;
    while (i < bulk.keys && bulk.of[i].cost != cost)
        i++;
    const bool forced = hami_now_ns() > atomic_load(&bulk.begun_ns) + 2 * GATE_NS;
    const bool room = i < KEYS && bulk.all.prices_ns + price_ns <= bulk.prepaid_ns;
    const bool alike = kind_of(price_ns) == bulk.kind && (bulk.kind == SHORT || i < bulk.keys);
    const bool fits = room && !forced && !hami_capturing() && cost != NULL && hami_cost_calm(cost) && price_ns > 0 && alike &&
                      card == bulk.card && stream == bulk.stream;
    if (!fits)
        end();
    return fits;
}

static bool mark_is_due(int64_t after_ns)
{
    const int launches = launches_since_mark();
    switch (bulk.marked) {
    case 0:
        return launches == plans[bulk.kind].warm;
    case 1:
        return launches == plans[bulk.kind].few;
    case 2:
        return launches == plans[bulk.kind].many || (after_ns > LAST_MARK_NS && launches >= plans[bulk.kind].least);
    default:
        return false;
    }
}

void hami_bulk_made(void)
{
    if (!hami_bulk_mine())
        return;
    const int64_t now = hami_now_ns(), begun = atomic_load(&bulk.begun_ns);
    if (mark_is_due(now - begun))
        mark();
    if ((bulk.marked == HAMI_BULK_MARKS && launches_since_mark() >= plans[bulk.kind].behind) || now > begun + GATE_NS)
        end();
}

void hami_bulk_stream_gone(CUstream stream)
{
    if (hami_bulk_mine() && bulk.stream == stream)
        end();
}

/* A program's event takes the card as long as a short kernel. */
#define RECORD(name, parameters, ...)           \
    CUresult name parameters                    \
    {                                           \
        if (hami_bulk_mine())                   \
            bulk.disturbed = true;              \
        return BEHIND(name, __VA_ARGS__);       \
    }
RECORD(cuEventRecord, (CUevent event, CUstream stream), event, stream)
RECORD(cuEventRecord_ptsz, (CUevent event, CUstream stream), event, stream)
RECORD(cuEventRecordWithFlags, (CUevent event, CUstream stream, unsigned int flags), event, stream, flags)
RECORD(cuEventRecordWithFlags_ptsz, (CUevent event, CUstream stream, unsigned int flags), event, stream, flags)

#ifdef HAMI_INSIDE
void hami_bulk_later(int64_t ns)
{
    for (size_t i = 0; i < sizeof again_ns / sizeof again_ns[0]; i++)
        atomic_fetch_add(&again_ns[i], ns);
}
#endif
