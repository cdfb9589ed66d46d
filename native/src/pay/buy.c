/* See buy.h. */
#include "pay/buy.h"

#include <errno.h>
#include <pthread.h>

#include "pay/capture.h"
#include "pay/lease.h"
#include "price/fence.h"
#include "price/sample.h"
#include "prim/prim.h"

enum {
    ASK_AGAIN_NS = 20 * 1000 * 1000, /* longest sleep: so soon is a changed limit felt */
    DRAIN_POLL_NS = 100 * 1000,
    EARLY_NS = 400 * 1000, /* a queue may be through so long before what was reckoned from prices */
    DRAIN_BRISK_NS = 2 * 1000 * 1000, /* so long after the reckoned end the queue is looked at without sleep */
    FENCE_POLL_NS = 10 * 1000,
    DRAIN_MOST_NS = 100 * 1000 * 1000, /* beyond what was reckoned; then the turn is handed on all the same */
    DRAIN_LATE_NS = 20 * 1000 * 1000, /* who does it and has not come back so long after that is not waited for */
    WAKE_NS = 60 * 1000,               /* what a sleeper takes to wake */
    LEARNING_NS = 5 * 1000 * 1000,     /* so long after a launch of a new key a process learns its prices */
    LOOK_OUT_NS = 300 * 1000           /* a turn that should come now is looked out for so long without sleep, once a turn */
};

/*
 * Waits until what this process has launched is through, and hands its turn on. Of several threads one does it; while anything is
 * being captured no event may be recorded, and then the reckoned time has to do.
 */
static void drain(hami_card *card, CUstream stream, int64_t reckoned_ns)
{
    const int64_t begun_ns = hami_now_ns(), ahead_ns = reckoned_ns > begun_ns ? reckoned_ns - begun_ns : 0;
    const int64_t lease = hami_lease_take(&card->drain_until_ns, begun_ns, ahead_ns + DRAIN_MOST_NS + DRAIN_LATE_NS);
    if (lease == 0) {
        hami_sleep_coarse_ns(DRAIN_POLL_NS);
        return;
    }
    const bool fenced = !hami_capturing() && hami_fence(card, stream, HAMI_FENCE_TURN);
    const int64_t most = reckoned_ns + DRAIN_MOST_NS;
    hami_sleep_until_ns(reckoned_ns - EARLY_NS);
    while (fenced && hami_now_ns() < most && !hami_fence_passed(card, HAMI_FENCE_TURN)) {
        pthread_mutex_lock(&card->pacing);
        hami_turn_draining(&card->pacer, hami_now_ns());
        pthread_mutex_unlock(&card->pacing);
        const int64_t now = hami_now_ns();
        if (now < reckoned_ns + DRAIN_BRISK_NS)
            hami_sleep_until_ns(now + FENCE_POLL_NS);
        else
            hami_sleep_coarse_ns(DRAIN_POLL_NS);
    }
    pthread_mutex_lock(&card->pacing);
    const int64_t over_ns = hami_now_ns();
    card->pacer.had.drains++;
    card->pacer.had.drained_ns += over_ns - begun_ns;
    if (hami_lease_end(&card->drain_until_ns, lease)) /* else the turn we have now is a later one, with work on the card */
        hami_turn_over(&card->pacer, over_ns);
    pthread_mutex_unlock(&card->pacing);
}

/* Looks out for a hand-over without sleeping. */
static void look_out(const hami_turns_page *page, uint32_t handed, int64_t until)
{
    while (atomic_load_explicit(&page->handed, memory_order_relaxed) == handed && hami_now_ns() < until)
        hami_relax();
}

/*
 * Sleeps until our turn may have come. Waking takes long beside a hand-over, so whoever has it due is up before it; once a turn only,
 * since the time it is due at is another tenant's word.
 */
static void wait_for_turn(hami_card *card, hami_turns_page *page, int64_t wish, uint32_t handed, int64_t until)
{
    const int64_t now = hami_now_ns(), due = atomic_load_explicit(&page->until_ns, memory_order_relaxed) - WAKE_NS;
    if (due > now && due < until)
        until = due;
    if (due > now || now - due > WAKE_NS + LOOK_OUT_NS || atomic_exchange(&card->looked_out_ns, wish) == wish)
        hami_futex_wait_shared(&page->handed, handed, until - now);
    else
        look_out(page, handed, now + WAKE_NS + LOOK_OUT_NS);
}

/*
 * Sleeps until it is worth asking again. `wish`: since when we want our turn, 0: it is the budget that lacks. `page`: where it was asked for; the broker may
 * have taken our place there back since, but it stays mapped.
 */
static void wait(hami_card *card, hami_turns_page *page, int64_t wish, uint32_t handed, int64_t until)
{
    const int64_t now = hami_now_ns();
    if (wish != 0 && until > now)
        wait_for_turn(card, page, wish, handed, until);
    else
        hami_sleep_until_ns(until - now > ASK_AGAIN_NS ? now + ASK_AGAIN_NS : until);
}

/* What has been bought for the launch before, and what is bought along for the past. */
typedef struct {
    int64_t spare_ns, debt_ns;
} purchase;

/* What was bought should be through: is it? Prices may be too low, and beside others' time slices everything takes longer. */
static void look_at_queue(hami_pacer *p, CUstream stream)
{
    p->dry = p->busy = false;
    if (!hami_turn_looks(p, hami_now_ns()) || hami_capturing())
        return;
    const int mode = hami_relaxed_begin(); /* another thread may begin to capture meanwhile */
    p->dry = USE(cuStreamQuery, stream) == CUDA_SUCCESS;
    hami_relaxed_end(mode);
    p->busy = !p->dry;
}

/* One try to buy. What was bought, 0: nothing. */
static int64_t try_to_buy(hami_card *card, int64_t need_ns, const purchase *of, int percent, CUstream stream)
{
    hami_ledger_card *shared = &hami_state.ledger->cards[card->ledger_index];
    int64_t until = 0;
    pthread_mutex_lock(&card->pacing);
    hami_pacer *p = &card->pacer;
    hami_turns_page *page = p->page;
    const uint32_t handed = page == NULL ? 0 : atomic_load(&page->handed);
    p->spare_ns = of->spare_ns;
    p->debt_ns = of->debt_ns;
    look_at_queue(p, stream);
    p->learns = hami_now_ns() - atomic_load_explicit(&card->learning_ns, memory_order_relaxed) < LEARNING_NS;
    p->borrows = atomic_load_explicit(&hami_state.core_policy, memory_order_relaxed) == HAMI_CORE_DEFAULT;
    const hami_step step = hami_pace(p, &shared->paid_until_ns, &card->purse, need_ns, percent, hami_now_ns(), &until);
    const int64_t wish = p->waiting_ns, bought = step == HAMI_GO ? p->bought_ns : 0;
    pthread_mutex_unlock(&card->pacing);
    if (step == HAMI_DRAIN)
        drain(card, stream, until);
    pthread_mutex_lock(&card->pacing);
    const bool wake = p->handed && page != NULL;
    p->handed = false;
    pthread_mutex_unlock(&card->pacing);
    if (wake)
        hami_futex_wake_shared(&page->handed);
    if (step == HAMI_WAIT)
        wait(card, page, wish, handed, until);
    return bought;
}

/* Waits until it is bought. 0: there was nothing left to buy, another thread having bought for all, or the limit being lifted. */
static int64_t wait_and_buy(hami_card *card, int64_t need_ns, const purchase *of, CUstream stream)
{
    for (;;) {
        const int percent = atomic_load_explicit(&card->percent, memory_order_relaxed);
        if (atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed) >= 0)
            return 0;
        if (percent >= 100 || atomic_load_explicit(&hami_throttling, memory_order_relaxed) == 0) {
            hami_budget_correct(&card->purse, -need_ns);
            return 0;
        }
        const int64_t bought = try_to_buy(card, need_ns, of, percent, stream);
        if (bought > 0)
            return bought;
    }
}

static void account(hami_card *card, int64_t bought_ns, int64_t waited_ns, int64_t now)
{
    hami_ledger_card *shared = &hami_state.ledger->cards[card->ledger_index];
    atomic_store_explicit(&shared->launched_ns, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->busy_ns, bought_ns, memory_order_relaxed);
    atomic_store_explicit(&card->launched_ns, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&card->busy_ns, bought_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&card->waited_ns, waited_ns, memory_order_relaxed);
}

void hami_buy(hami_card *card, int64_t need_ns, int64_t spare_ns, CUstream stream)
{
    /* The debt of all threads: what one buys, the others need not. */
    const int64_t debt_ns = -atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed);
    const purchase of = {.spare_ns = spare_ns, .debt_ns = debt_ns > need_ns ? debt_ns - need_ns : 0};
    need_ns += of.debt_ns;
    const int kept = errno;
    const int64_t begun = hami_now_ns();
    const int64_t bought = wait_and_buy(card, need_ns, &of, stream);
    const int64_t now = hami_now_ns();
    account(card, bought, now - begun, now);
    if (!hami_capturing()) {
        hami_samples_read();
        hami_calibrate(card);
    }
    errno = kept;
}
