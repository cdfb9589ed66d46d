/* See turns.h. */
#include "pay/turns.h"

#include <assert.h>

enum {
    DEFIANCE_NS = 1000 * 1000 * 1000,
    MOST_DEFIED = 6,
    MOST_BOUND = 3,
    LONG_NS = HAMI_LINGER_NS / 2 /* a queue that is seen full counts as full for longer than that */
};
#define BELIEVED_NS ((int64_t)1000 * 1000 * 1000) /* nobody's queue is believed to be longer; who waits for one has his own patience */
#define BOUND_NS ((int64_t)1000 * 1000 * 1000)
#define CLOSELY_AGAIN_NS ((int64_t)1000 * 1000 * 1000)

static_assert((int64_t)HAMI_LAPSE_NS * 100 <= (int64_t)HAMI_JUDGED_NS * HAMI_DRY_PERCENT, "one absence alone is not too much");

/* When what was launched is through. */
static int64_t queue_end(const hami_pacer *p)
{
    return p->queue_end_ns - p->spare_ns;
}

void hami_turn_used(hami_pacer *p, int64_t span_ns, int64_t now)
{
    if (p->page == NULL)
        return;
    atomic_store_explicit(&p->page->percent_of[p->tenant], (uint8_t)p->weight, memory_order_relaxed);
    atomic_store_explicit(&p->page->used_ns[p->tenant], now + span_ns, memory_order_relaxed);
}

static void use_until(hami_pacer *p, int64_t until, int64_t now)
{
    const int64_t span = until - now;
    hami_turn_used(p, span < HAMI_BOUGHT_NS - HAMI_LINGER_NS ? span : HAMI_BOUGHT_NS - HAMI_LINGER_NS, now);
}

/* Who waits, to launch or for what he has launched, does not look idle though the machine lets him say so late. */
static void wants_until(hami_pacer *p, int64_t until, int64_t now)
{
    use_until(p, until + HAMI_LINGER_NS - HAMI_IDLE_NS, now);
}

bool hami_turn_others_buy(const hami_pacer *p, int64_t now)
{
    return p->page != NULL && hami_page_others_buy(p->page, p->tenant, now);
}

/* One that cannot fill its turns is none of those that wait for each other, nor one that others have to wait for. */
static void mark_full(hami_pacer *p, int64_t now)
{
    if (p->page != NULL && now >= p->bound_ns)
        atomic_store_explicit(&p->page->full_ns[p->tenant], now, memory_order_relaxed);
}

static void ask(hami_pacer *p, int64_t now)
{
    if (hami_page_away(p->page, p->member, now))
        hami_page_enter(p->page, p->member, p->tenant, p->weight, now);
    if (p->waiting_ns == 0)
        p->waiting_ns = now;
    mark_full(p, now);
    wants_until(p, now, now);
    atomic_store_explicit(&p->page->asked_ns[p->member], now, memory_order_relaxed);
}

static void begin(hami_pacer *p, uint64_t word, bool handed, int64_t now)
{
    p->word = word;
    p->beside = !handed;
    p->left_ns = HAMI_TURN_NS;
    p->brief_ns = 0;
    p->had.turns++;
    p->had.waited_ns += p->waiting_ns == 0 ? 0 : now - p->waiting_ns;
    p->waiting_ns = 0;
    p->defied = 0;
    p->excused = false;
    atomic_store_explicit(&p->page->had_ns[p->member], now, memory_order_relaxed);
    atomic_store(&p->page->until_ns, p->queue_end_ns > now ? p->queue_end_ns : now);
}

/* Is it our turn, or can it be made so? */
static bool take(hami_pacer *p, int64_t now)
{
    uint64_t word = atomic_load(&p->page->holder);
    const int holder = hami_page_holder(word);
    if (holder == p->member) {
        begin(p, word, true, now);
        return true;
    }
    const int64_t until = hami_page_load(&p->page->until_ns);
    const bool over = holder < 0 || !(until > now - HAMI_PATIENCE_NS && until < now + BELIEVED_NS);
    if (!over || hami_page_next(p->page, now) != p->member)
        return false;
    const uint64_t ours = hami_page_word(word, p->member);
    if (!atomic_compare_exchange_strong(&p->page->holder, &word, ours))
        return false;
    begin(p, ours, false, now);
    return true;
}

/* Its queue has not been empty for more than now and then a moment. */
static bool never_dry(const hami_pacer *p, int64_t now)
{
    return p->full_since_ns != 0 && now - p->full_since_ns > HAMI_NEVER_DRY_NS;
}

/* For how long nothing of ours has been on the card, as far as can be known: since the reckoned end, but for what was waited for. */
static int64_t idle_ns(const hami_pacer *p, int64_t most_blocked_ns, int64_t now)
{
    const int64_t idle = now - p->queue_end_ns - (p->blocked_ns < most_blocked_ns ? p->blocked_ns : most_blocked_ns);
    return idle > 0 ? idle : 0;
}

static void host_is_bound(hami_pacer *p, int64_t now)
{
    p->bound_ns = now + (BOUND_NS << p->times_bound);
    p->times_bound += p->times_bound < MOST_BOUND;
    p->had.bound++;
    p->busy_ns = p->dry_ns = 0;
    p->unseen = p->closely = false;
}

/*
 * What was queued in our turn is through before there is more: once that is too much of our turns, we go without.
 * A pause of our host is not seen where what was launched after it had been bought before: by the next purchase there is something on the card again,
 * though all should be through. That may as well be late. So where it has been so each launch is bought by itself for a while, and nothing is missed.
 */
static void judge_host(hami_pacer *p, int64_t now)
{
    const bool lost = atomic_load_explicit(&p->page->holder, memory_order_relaxed) != p->word;
    const int64_t idle = idle_ns(p, p->bought_ns, now); /* beside another's work it takes twice as long */
    if (!p->excused && (p->dry || lost) && idle > 0)
        p->dry_ns += idle < HAMI_LAPSE_NS ? idle : HAMI_LAPSE_NS;
    p->unseen |= !p->excused && p->busy && idle > HAMI_PAUSE_NS;
    p->excused = false;
    const int64_t all = p->busy_ns + p->dry_ns;
    if (all < HAMI_JUDGED_NS)
        return;
    if (p->dry_ns * 100 > all * HAMI_DRY_PERCENT) {
        host_is_bound(p, now);
    } else if (all > 4 * (int64_t)HAMI_JUDGED_NS) {
        p->busy_ns /= 2;
        p->dry_ns /= 2;
        p->times_bound = 0;
        p->unseen = p->closely = false;
    } else if (p->unseen && now > p->closely_ns + CLOSELY_AGAIN_NS) {
        p->unseen = false;
        p->closely = true;
        p->closely_ns = now;
    }
}

static bool holds(const hami_pacer *p)
{
    return p->word != 0 && atomic_load_explicit(&p->page->holder, memory_order_relaxed) == p->word;
}

static bool mine(hami_pacer *p)
{
    if (p->word != 0 && !holds(p)) {
        p->word = 0; /* somebody found our queue dry */
        p->had.lost++;
    }
    return p->word != 0;
}

/* By work queued, not by time passed: a turn's launches are made in a moment and run for long. */
static void charge(hami_pacer *p, int64_t gpu_ns)
{
    atomic_fetch_add_explicit(&p->page->virtual_ns[p->tenant], gpu_ns * 100 / p->weight, memory_order_relaxed);
}

static void hand_on(hami_pacer *p, bool want, int64_t now)
{
    uint64_t word = p->word;
    p->word = 0;
    p->waiting_ns = want ? now : 0;
    atomic_store_explicit(&p->page->had_ns[p->member], now, memory_order_relaxed);
    atomic_store_explicit(&p->page->asked_ns[p->member], want ? now : 0, memory_order_relaxed);
    if (atomic_load(&p->page->holder) == word)
        atomic_store(&p->page->until_ns, now + HAMI_CLAIM_NS);
    if (!atomic_compare_exchange_strong(&p->page->holder, &word, hami_page_word(word, hami_page_next(p->page, now))))
        return;
    atomic_fetch_add(&p->page->handed, 1);
    p->handed = true;
}

void hami_turn_over(hami_pacer *p, int64_t now)
{
    p->queue_end_ns = now;
    p->blocked_ns = 0;
    if (p->page != NULL && p->word != 0)
        hand_on(p, p->left_ns <= 0, now); /* else it was the budget that ended it */
}

void hami_turn_draining(hami_pacer *p, int64_t now)
{
    if (p->page == NULL || !mine(p))
        return;
    wants_until(p, now, now);
    if (p->bought_ns > LONG_NS)
        mark_full(p, now);
    if (hami_page_load(&p->page->until_ns) < now)
        atomic_store(&p->page->until_ns, now);
}

/*
 * Whoever takes a turn that nobody handed on may have others' work beside his own at first, and wait for both: then no end can be reckoned, and to look for one
 * would take the turn from him, and from who took it, again and again. A wait later in a turn says nothing, nor one that begins when all should
 * be through: a stream may wait for its host.
 */
void hami_turn_waits(hami_pacer *p, int64_t now)
{
    if (p->page != NULL && now - p->queue_end_ns < HAMI_LINGER_NS)
        wants_until(p, now, now);
    if (p->page != NULL && holds(p) && p->beside && never_dry(p, now) && now <= hami_page_load(&p->page->until_ns))
        atomic_store(&p->page->until_ns, (p->queue_end_ns > now ? p->queue_end_ns : now) + HAMI_TURN_NS);
}

/*
 * Who waits again with nothing bought in between shows no more work than before, and a call that was back at once shows none: neither keeps the turn longer
 * than was reckoned, or who asks again and again whether all is through would keep it.
 */
void hami_turn_waited(hami_pacer *p, int64_t since, int64_t now)
{
    if (p->page == NULL)
        return;
    const bool ours = holds(p), waited = now - since >= HAMI_WAITED_NS;
    const int64_t reckoned = p->queue_end_ns > now ? p->queue_end_ns : now;
    if (ours && p->beside)
        atomic_store(&p->page->until_ns, waited ? reckoned : p->queue_end_ns);
    else if (ours && waited && since <= hami_page_load(&p->page->until_ns))
        atomic_store(&p->page->until_ns, reckoned);
    if (!waited)
        return;
    use_until(p, reckoned, now);
    p->had.waits++;
    int64_t from = since > p->queue_end_ns ? since : p->queue_end_ns;
    from = from > p->blocked_until_ns ? from : p->blocked_until_ns; /* what several threads wait for counts once */
    if (now > from && (!ours || p->beside)) {
        p->blocked_ns += now - from;
        p->blocked_until_ns = now;
    }
    p->beside = false;
}

bool hami_turn_ours(const hami_pacer *p)
{
    return p->page != NULL && p->word != 0;
}

/*
 * A turn that does not come is not waited for for ever, whatever stands in the page. Who was not there to take it has not waited: a host that the machine
 * kept for 100 ms went without turns for a second after that.
 */
static bool waited_too_long(hami_pacer *p, int64_t now)
{
    const int64_t last = p->asked_ns > p->waiting_ns ? p->asked_ns : p->waiting_ns, away = now - last - 2 * (int64_t)HAMI_POLL_NS;
    if (p->waiting_ns != 0 && away > 0)
        p->waiting_ns += away;
    p->asked_ns = now;
    const int64_t most = HAMI_LINGER_NS + 2 * (int64_t)HAMI_TURN_NS * 100 / p->weight;
    if (p->waiting_ns == 0 || now - p->waiting_ns < most)
        return false;
    p->defiant_ns = now + ((int64_t)DEFIANCE_NS << p->defied);
    p->defied += p->defied < MOST_DEFIED;
    p->had.defiances++;
    p->had.waited_ns += now - p->waiting_ns;
    p->waiting_ns = 0;
    atomic_store_explicit(&p->page->asked_ns[p->member], 0, memory_order_relaxed);
    return true;
}

/* True: go on. False: wait or drain, as `step` says. */
static bool have_turn(hami_pacer *p, int64_t now, hami_step *step, int64_t *until)
{
    *until = now + HAMI_POLL_NS;
    *step = HAMI_WAIT;
    if (mine(p)) {
        if (p->left_ns > 0)
            return true;
        atomic_store_explicit(&p->page->asked_ns[p->member], now, memory_order_relaxed);
        if (hami_page_next(p->page, now) == p->member) {
            p->left_ns = HAMI_TURN_NS;
            p->brief_ns = 0;
            return true;
        }
        *step = HAMI_DRAIN;
        *until = queue_end(p);
        atomic_store(&p->page->until_ns, *until > now ? *until : now);
        return false;
    }
    if (waited_too_long(p, now))
        return true;
    ask(p, now);
    if (take(p, now))
        return true;
    const int64_t dry = hami_page_load(&p->page->until_ns);
    if (dry > now - HAMI_PATIENCE_NS && dry < *until - HAMI_PATIENCE_NS)
        *until = dry + HAMI_PATIENCE_NS;
    return false;
}

bool hami_turn_looks(const hami_pacer *p, int64_t now)
{
    return p->page != NULL && now > p->queue_end_ns && (p->word != 0 || !hami_page_others_idle(p->page, p->tenant, HAMI_LINGER_NS, now));
}

/*
 * By prices a queue is never long beside others' slices: what is bought is reckoned to be through before more is, as the card is slower for us than
 * reckoned. So one that is never found empty is full as well. (Two such tenants never took turns, or never again: 30.0 and 61.4 of 30 and 70.) So is
 * one that is empty whenever we launch, as its host waits for each launch, but for that moment alone. (46.7 each of 50 and 50.) And so is who learns
 * what its launches cost: in its turn no slice of another's is in that.
 */
static void see_queue(hami_pacer *p, int64_t now)
{
    const bool dry = p->dry && p->waiting_ns == 0;
    p->gaps_ns += dry ? idle_ns(p, INT64_MAX, now) : 0;
    if (p->full_since_ns == 0 || (dry && p->blocked_ns == 0) || p->gaps_ns * 100 > (now - p->full_since_ns) * HAMI_DRY_PERCENT) {
        p->full_since_ns = now;
        p->gaps_ns = 0;
    }
    if (p->learns || p->queue_end_ns - now > HAMI_FULL_NS || ((p->busy || p->dry) && never_dry(p, now)))
        mark_full(p, now);
}

/* Somebody has his turn, and work in it that is not through, whatever he has to run after that. */
static bool others_turn(const hami_pacer *p, int64_t now)
{
    const int holder = hami_page_holder(atomic_load(&p->page->holder));
    const int64_t until = hami_page_load(&p->page->until_ns);
    return holder >= 0 && holder != p->member && until > now && until < now + BELIEVED_NS;
}

static bool contended(hami_pacer *p, int64_t now)
{
    return p->page != NULL && now >= p->defiant_ns && now >= p->bound_ns && hami_page_full(p->page, p->tenant, now) &&
           (hami_page_others_full(p->page, p->tenant, now) || others_turn(p, now));
}

/* Who is full and launches something long asks for nothing until it is through: he is full until then. */
static void stay_full(hami_pacer *p, int64_t now)
{
    if (p->page != NULL && p->queue_end_ns - now > LONG_NS && now >= p->bound_ns && hami_page_full(p->page, p->tenant, now))
        atomic_store_explicit(&p->page->full_ns[p->tenant], p->queue_end_ns, memory_order_relaxed);
}

/*
 * The card is left idle for our budget's sake for a moment, which is less than to hand the turn on takes, but for no more of them than that together where
 * others wait: launches bought one by one have a brief wait each (and 10 of 10 % and 90 kept the turn for half a second).
 */
static bool keeps_turn_over(hami_pacer *p, int64_t wait_ns, int64_t now)
{
    p->brief_ns += wait_ns;
    return wait_ns <= HAMI_BRIEF_NS && (p->brief_ns <= HAMI_BRIEF_NS || !hami_page_others_ask(p->page, p->member, now));
}

static hami_step wait_for_budget(hami_pacer *p, int64_t when, int64_t now, int64_t *until)
{
    mark_full(p, now);
    wants_until(p, when, now);
    p->waiting_ns = 0;
    p->excused = true;
    if (p->page != NULL && mine(p) && !keeps_turn_over(p, when - now, now)) {
        *until = queue_end(p);
        return HAMI_DRAIN; /* the card is free for others meanwhile */
    }
    if (p->page != NULL && p->word == 0)
        atomic_store_explicit(&p->page->asked_ns[p->member], 0, memory_order_relaxed);
    *until = when;
    return HAMI_WAIT;
}

hami_step hami_pace(hami_pacer *p, _Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t need_ns, int percent, int64_t now,
                    int64_t *until)
{
    hami_turn_used(p, 0, now);
    if (p->borrows && p->page != NULL)
        percent = hami_page_part(p->page, p->tenant, percent, now);
    if (p->word != 0)
        judge_host(p, now);
    see_queue(p, now);
    const int64_t paid = hami_budget_paid(paid_until_ns, purse);
    if (paid > now)
        return wait_for_budget(p, paid, now, until);
    const bool turns = contended(p, now);
    hami_step step = HAMI_GO;
    if (turns && !have_turn(p, now, &step, until))
        return step;
    if (!turns && p->page != NULL && p->word != 0)
        hand_on(p, false, now);
    if (!turns)
        p->waiting_ns = 0;
    const int64_t bought = need_ns + (turns ? (p->closely && need_ns > 0 ? 0 : HAMI_SLAB_NS) : hami_budget_slab(paid, percent, now));
    const int64_t when =
        hami_budget_buy(paid_until_ns, purse, bought, percent, turns ? HAMI_TURN_BURST_NS : HAMI_BURST_NS, now);
    if (when != 0)
        return wait_for_budget(p, when, now, until);
    p->bought_ns = bought;
    p->queue_end_ns = (p->queue_end_ns > now ? p->queue_end_ns : now) + bought - p->debt_ns;
    p->blocked_ns = 0;
    p->left_ns -= bought;
    stay_full(p, now);
    use_until(p, p->queue_end_ns, now);
    if (turns && p->word != 0) {
        atomic_store(&p->page->until_ns, p->queue_end_ns);
        p->busy_ns += bought - p->debt_ns;
        charge(p, bought);
    }
    return HAMI_GO;
}
