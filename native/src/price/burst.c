/* See burst.h. */
#include "price/burst.h"

#include "pay/buy.h"
#include "pay/capture.h"
#include "process/log.h"
#include "price/overlap.h"
#include "prim/prim.h"
#include "price/strand.h"

enum {
    BRISK_TRIES = 100,
    EARLY_NS = 200 * 1000,               /* a stream may be through so long before what was reckoned from prices */
    LOOK_NS = 20 * 1000,
    SLOW_LOOK_NS = 100 * 1000,
    PATIENCE_NS = 100 * 1000 * 1000,     /* what is waited for may depend on a launch that we keep waiting */
    WAIT_NS = 5 * 1000 * 1000            /* longest sleep of who is not told */
};
#define LOST_NS ((int64_t)2 * 1000 * 1000 * 1000) /* who keeps a burst for so long does not come back: a handler may have jumped out of it */

typedef enum { OFF, BETWEEN, OPEN, CLOSING } phase;

/* A card's. All but the atomics under `lock`, which is never held while anything is waited for. */
typedef struct {
    pthread_mutex_t lock;
    _Atomic int phase;
    _Atomic uint32_t changed;  /* rises with each change of phase; futex */
    _Atomic int64_t again_ns;  /* not before this is looked whether streams overlap */
    hami_card *card;
    CUcontext context; /* of the events; NULL: none are made */
    hami_strands strands;
    _Atomic int inside; /* launches that have joined and are not made */
    int64_t begun_ns, until_ns, prepaid_ns, prices_ns;
    const void *keeper; /* thread that pays for the next, waits for the end of this one or closes it, by something of its own; NULL: none does */
    int64_t kept_ns;    /* since when */
    bool unpriced;
    hami_overlap overlap;
} burst;

static burst bursts[HAMI_MAX_CARDS] = {[0 ... HAMI_MAX_CARDS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

/* What this thread has joined and not made. */
static __thread struct {
    burst *of;
    hami_strand *on;
} joined __attribute__((tls_model("initial-exec")));

static void keep(burst *b)
{
    b->keeper = &joined;
    b->kept_ns = hami_now_ns();
}

/* False: somebody has ended it meanwhile. */
static bool kept(burst *b)
{
    const bool ours = b->keeper == &joined;
    if (ours)
        b->keeper = NULL;
    return ours;
}

/* Its keeper does not come back, or is this very thread: in a handler that has interrupted it, or after one has jumped out of it. */
static bool lost(const burst *b)
{
    return b->keeper != NULL && (b->keeper == &joined || hami_now_ns() > b->kept_ns + LOST_NS);
}

static burst *burst_of(const hami_card *card)
{
    return &bursts[card - hami_state.cards];
}

/* For launches: it is had for some tens of ns at a time, by several threads at once, and sleeping for it would take a hundred times that. */
static void lock_briskly(burst *b)
{
    for (int i = 0; i < BRISK_TRIES; i++) {
        if (pthread_mutex_trylock(&b->lock) == 0)
            return;
        hami_relax();
    }
    pthread_mutex_lock(&b->lock);
}

static void turn_to(burst *b, phase next)
{
    atomic_store(&b->phase, (int)next);
    atomic_fetch_add(&b->changed, 1);
    hami_futex_wake(&b->changed);
}

/* ---- beginning and ending ---- */

/* In the context that launches; another that launched in bursts before keeps its events. */
static bool prepare(burst *b)
{
    CUcontext context = NULL;
    if (USE(cuCtxGetCurrent, &context) != CUDA_SUCCESS || context == NULL || hami_capturing())
        return false;
    if (b->context == NULL && hami_strands_make(&b->strands))
        b->context = context;
    return b->context == context;
}

bool hami_burst_goes(hami_card *card, bool crowded, int64_t price_ns)
{
    burst *b = burst_of(card);
    if (atomic_load_explicit(&b->phase, memory_order_relaxed) != OFF)
        return true;
    if (!crowded || atomic_load(&card->purse.credit_ns) >= price_ns)
        return false;
    const int64_t now = hami_now_ns();
    const hami_ledger_card *shared = &hami_state.ledger->cards[card->ledger_index];
    if (hami_budget_paid(&shared->paid_until_ns, &card->purse) <= now || now < atomic_load(&b->again_ns) || pthread_mutex_trylock(&b->lock) != 0)
        return false;
    b->card = card;
    if (atomic_load(&b->phase) == OFF && b->inside == 0) {
        hami_overlap_begin(&b->overlap);
        atomic_store(&b->again_ns, now + b->overlap.again_ns);
        if (prepare(b))
            turn_to(b, BETWEEN);
    }
    const bool goes = atomic_load(&b->phase) != OFF;
    pthread_mutex_unlock(&b->lock);
    return goes;
}

/* What the burst is charged, against what was paid when it began. */
static void settle(burst *b, int64_t charge_ns)
{
    hami_budget_correct(&b->card->purse, charge_ns - b->prepaid_ns);
    b->prepaid_ns = b->prices_ns = 0;
}

/* It cannot go on, and nothing can be measured. */
static void give_up(burst *b)
{
    settle(b, b->prices_ns);
    b->keeper = NULL;
    atomic_store(&b->again_ns, hami_now_ns() + b->overlap.again_ns);
    turn_to(b, OFF);
}

static bool usable(const burst *b)
{
    CUcontext context = NULL;
    return !hami_capturing() && atomic_load(&hami_throttling) != 0 && atomic_load(&b->card->percent) < 100 &&
           USE(cuCtxGetCurrent, &context) == CUDA_SUCCESS && context == b->context;
}

/* ---- opening ---- */

/* Pays for it in advance: as much as the last one was charged. False: it was given up meanwhile. */
static bool open_burst(burst *b, CUstream stream)
{
    hami_card *card = b->card;
    const int64_t length_ns = hami_burst_length_ns(&b->overlap, atomic_load(&card->percent));
    const int64_t prepaid = b->overlap.charged_ns > 0 ? b->overlap.charged_ns : length_ns;
    keep(b);
    pthread_mutex_unlock(&b->lock);
    const int64_t need = hami_purse_spend(&card->purse, prepaid);
    if (need > 0 || atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed) < 0)
        hami_buy(card, need, prepaid - need, stream);
    pthread_mutex_lock(&b->lock);
    if (!kept(b)) {
        hami_budget_correct(&card->purse, -prepaid);
        return false;
    }
    b->prepaid_ns = prepaid;
    b->prices_ns = 0;
    b->unpriced = false;
    if (!hami_strands_begin(&b->strands)) {
        give_up(b);
        return false;
    }
    b->begun_ns = hami_now_ns();
    b->until_ns = b->begun_ns + length_ns;
    turn_to(b, OPEN);
    return true;
}

/* ---- closing ---- */

/* Lets go of the lock for that long. */
static void nap(burst *b, int64_t ns)
{
    pthread_mutex_unlock(&b->lock);
    hami_sleep_until_ns(hami_now_ns() + ns);
    pthread_mutex_lock(&b->lock);
}

static bool is_still(const burst *b, phase in, int64_t begun_ns)
{
    return atomic_load(&b->phase) == (int)in && b->begun_ns == begun_ns;
}

/* All that has joined is launched, its end is marked, and the card has got there. Its context may go meanwhile, and the events with it. */
static bool run_dry(burst *b)
{
    const int64_t until = hami_now_ns() + PATIENCE_NS, begun_ns = b->begun_ns;
    while (b->inside > 0 && is_still(b, CLOSING, begun_ns) && hami_now_ns() < until)
        nap(b, LOOK_NS);
    bool marked = is_still(b, CLOSING, begun_ns);
    for (int i = 0; marked && i < b->strands.count; i++)
        marked = hami_strand_end(&b->strands.all[i]);
    int64_t looked = 0;
    for (int i = 0; marked && i < b->strands.count; i++) {
        while (is_still(b, CLOSING, begun_ns) && !hami_strand_passed(&b->strands, &b->strands.all[i])) {
            if (hami_capturing() || hami_now_ns() > until + b->prices_ns)
                return false;
            nap(b, looked++ < 100 ? LOOK_NS : SLOW_LOOK_NS);
        }
    }
    return marked;
}

static void close_burst(burst *b)
{
    const int64_t begun_ns = b->begun_ns;
    keep(b);
    turn_to(b, CLOSING);
    const bool dry = run_dry(b);
    if (!is_still(b, CLOSING, begun_ns))
        return; /* its context has gone, or somebody has given it up */
    b->keeper = NULL;
    if (!dry) {
        give_up(b);
        return;
    }
    const hami_burst_had had = {.prices_ns = b->prices_ns, .span_ns = hami_strands_span(&b->strands),
                                .streams = hami_strands_used(&b->strands), .unpriced = b->unpriced};
    hami_log(HAMI_LOG_ALL, "burst of %d streams: prices %lld us, span %lld, paid %lld", had.streams, (long long)had.prices_ns / 1000,
             (long long)had.span_ns / 1000, (long long)b->prepaid_ns / 1000);
    const bool goes_on = hami_overlap_goes_on(&b->overlap, &had);
    settle(b, hami_burst_charge(&had));
    atomic_store(&b->again_ns, hami_now_ns() + b->overlap.again_ns);
    turn_to(b, goes_on ? BETWEEN : OFF);
}

/* The stream has launched what it may: when it is through, the burst is closed. Of several that wait one sees to it. */
static void wait_for_end(burst *b, hami_strand *s)
{
    keep(b);
    const int64_t reckoned = s->through_ns, burst_ns = b->begun_ns;
    pthread_mutex_unlock(&b->lock);
    hami_sleep_until_ns(reckoned - EARLY_NS);
    pthread_mutex_lock(&b->lock);
    while (is_still(b, OPEN, burst_ns) && hami_now_ns() < reckoned + PATIENCE_NS && !hami_capturing() &&
           !(hami_strand_end(s) && hami_strand_passed(&b->strands, s)))
        nap(b, LOOK_NS);
    if (kept(b) && is_still(b, OPEN, burst_ns))
        close_burst(b);
}

/* ---- launches ---- */

static void enter(burst *b, hami_strand *s, int64_t price_ns, int64_t now)
{
    s->through_ns = (s->through_ns > now ? s->through_ns : now) + price_ns;
    s->unmarked_ns += price_ns;
    s->launches++;
    s->inside++;
    s->ended = false;
    b->prices_ns += price_ns;
    b->unpriced |= price_ns == 0;
    b->inside++;
    joined.of = b;
    joined.on = s;
}

static void wait_for_change(burst *b)
{
    const uint32_t seen = atomic_load(&b->changed);
    pthread_mutex_unlock(&b->lock);
    hami_futex_wait(&b->changed, seen, WAIT_NS);
    pthread_mutex_lock(&b->lock);
}

/* True: the launch is in. */
static bool try_to_join(burst *b, CUstream stream, int64_t price_ns)
{
    const int64_t now = hami_now_ns();
    hami_strand *s = hami_strand_of(&b->strands, stream);
    if (s == NULL) {
        give_up(b);
    } else if (now < b->until_ns && s->through_ns < b->until_ns) {
        enter(b, s, price_ns, now);
        return true;
    } else {
        hami_strand_end(s); /* now: an event is passed no sooner than it is recorded */
        if (b->keeper != NULL)
            wait_for_change(b);
        else
            wait_for_end(b, s);
    }
    return false;
}

hami_burst_part hami_burst_join(hami_card *card, CUstream stream, int64_t price_ns)
{
    burst *b = burst_of(card);
    hami_burst_part part = HAMI_BURST_NONE;
    bool first = false;
    lock_briskly(b);
    while (part == HAMI_BURST_NONE && atomic_load(&b->phase) != OFF) {
        if (!usable(b) || lost(b))
            give_up(b);
        else if (atomic_load(&b->phase) == BETWEEN && b->keeper == NULL)
            first = open_burst(b, stream);
        else if (atomic_load(&b->phase) != OPEN)
            wait_for_change(b);
        else if (try_to_join(b, stream, price_ns))
            part = first ? HAMI_BURST_FIRST : HAMI_BURST_JOINED;
        else
            first = false;
    }
    pthread_mutex_unlock(&b->lock);
    return part;
}

void hami_burst_made(void)
{
    burst *b = joined.of;
    hami_strand *s = joined.on;
    if (b == NULL)
        return;
    joined.of = NULL;
    if (s->stream != CU_STREAM_PER_THREAD) {
        atomic_fetch_sub(&s->inside, 1);
        atomic_fetch_sub(&b->inside, 1);
        return;
    }
    lock_briskly(b);
    atomic_fetch_sub(&s->inside, 1);
    atomic_fetch_sub(&b->inside, 1);
    hami_strand_launched(s, b->unpriced || s->through_ns >= b->until_ns);
    pthread_mutex_unlock(&b->lock);
}

/* ---- what may happen meanwhile ---- */

void hami_burst_pause(void)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        if (atomic_load(&bursts[i].phase) == OFF)
            continue;
        pthread_mutex_lock(&bursts[i].lock);
        pthread_mutex_unlock(&bursts[i].lock);
    }
}

void hami_burst_context_gone(CUcontext context)
{
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        burst *b = &bursts[i];
        pthread_mutex_lock(&b->lock);
        if (b->context == context && atomic_load(&b->phase) != OFF)
            give_up(b);
        if (b->context == context)
            b->context = NULL;
        pthread_mutex_unlock(&b->lock);
    }
}

void hami_burst_forget(void)
{
    for (int i = 0; i < HAMI_MAX_CARDS; i++)
        bursts[i] = (burst){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void hami_burst_stream_gone(CUstream stream)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        burst *b = &bursts[i];
        pthread_mutex_lock(&b->lock);
        if (atomic_load(&b->phase) != OFF)
            hami_strands_gone(&b->strands, stream);
        pthread_mutex_unlock(&b->lock);
    }
}
