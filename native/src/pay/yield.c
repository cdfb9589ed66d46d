/* See yield.h. */
#include "pay/yield.h"

#include "pay/capture.h"
#include "pay/lease.h"
#include "price/fence.h"
#include "prim/prim.h"

enum {
    PAUSE_NS = 1000 * 1000,
    HIGH_NS = 10 * 1000 * 1000,         /* a tenant of high priority that launched within this time is at work */
    YIELD_LEAST_NS = 1000 * 1000 * 1000, /* pause for it, after which something is run all the same */
    EXCUSED_NS = 2 * 1000 * 1000,       /* what is run then */
    YIELD_TIMES = 250,                  /* the pause after that, in what it took on the card */
    GROUP_NS = 500 * 1000,              /* what is queued at once beside a tenant of high priority that is not at work: two such groups */
    GROUP_MOST = 256,                   /* launches */
    PASS_MOST_NS = 1000 * 1000 * 1000,  /* longest wait for a fence: it may depend on a later launch */
    LOOK_NS = 20 * 1000
};
#define YIELD_MOST_NS ((int64_t)20 * 1000 * 1000 * 1000)

/* Of a time that anybody may have written. */
static bool recent(int64_t high_ns, int64_t now)
{
    return high_ns > now - HIGH_NS && high_ns < now + HIGH_NS;
}

static bool high_at_work(hami_card *card, int64_t now)
{
    return atomic_load_explicit(&card->mixed, memory_order_relaxed) &&
           recent(atomic_load_explicit(&card->pacer.page->high_ns, memory_order_relaxed), now);
}

/* Waits until what was launched before the fence is through, or until then. */
static void pass(hami_card *card, hami_fence_kind fence, int64_t until)
{
    while (!hami_capturing() && !hami_fence_passed(card, fence) && hami_now_ns() < until)
        hami_sleep_until_ns(hami_now_ns() + LOOK_NS);
}

/*
 * The time it had is over: whatever it launched in it is let end, and the next pause is as much longer. A request of high priority that comes
 * meanwhile may find the card taken, and so less than one of a hundred does, whatever is launched here.
 */
static void account_for_it(hami_card *card, CUstream stream)
{
    const int64_t begun = atomic_exchange(&card->excused_since_ns, 0);
    if (begun == 0)
        return;
    atomic_store(&card->pause_ns, YIELD_LEAST_NS); /* whatever happens to this thread below */
    if (!hami_capturing() && hami_fence(card, stream, HAMI_FENCE_LEASH))
        pass(card, HAMI_FENCE_LEASH, hami_now_ns() + PASS_MOST_NS);
    const int64_t pause = YIELD_TIMES * (hami_now_ns() - begun);
    atomic_store(&card->pause_ns, pause < YIELD_LEAST_NS ? YIELD_LEAST_NS : pause > YIELD_MOST_NS ? YIELD_MOST_NS : pause);
}

/* Whatever stands in the shared page, the low one is on the card for 2 ms of each second, or 1 part in 250. */
static void hold_back(hami_card *card, CUstream stream)
{
    for (int64_t now = hami_now_ns(); now > atomic_load(&card->excused_ns) && high_at_work(card, now); now = hami_now_ns()) {
        account_for_it(card, stream);
        int64_t since = 0;
        if (!atomic_compare_exchange_strong(&card->yielded_ns, &since, now) && now - since > atomic_load(&card->pause_ns)) {
            atomic_store(&card->yielded_ns, 0);
            atomic_store(&card->excused_since_ns, now);
            atomic_store(&card->excused_ns, now + EXCUSED_NS);
            return;
        }
        hami_sleep_coarse_ns(PAUSE_NS);
    }
    if (hami_now_ns() > atomic_load(&card->excused_ns))
        atomic_store(&card->yielded_ns, 0);
}

/* In that time one launch after the other: 2 ms of launching would else queue half a second of work, and requests beside it. */
static bool may_go(hami_card *card, CUstream stream)
{
    const int64_t excused = atomic_load(&card->excused_ns);
    if (hami_now_ns() > excused || !high_at_work(card, hami_now_ns()) || hami_capturing() ||
        !hami_fence(card, stream, HAMI_FENCE_LEASH))
        return true;
    pass(card, HAMI_FENCE_LEASH, excused);
    return hami_now_ns() < excused;
}

/*
 * What the low one has queued when the high one begins runs on beside it. So it never has much: its launches go in groups, each once the
 * one before the last is through, and groups are made as large as fills GROUP_NS.
 */
static void keep_queue_short(hami_card *card, CUstream stream)
{
    static _Atomic int64_t until_ns;
    const uint32_t group = atomic_load_explicit(&card->group, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&card->grouped, 1, memory_order_relaxed) + 1 < group || hami_capturing())
        return;
    const int64_t lease = hami_lease_take(&until_ns, hami_now_ns(), 2 * (int64_t)PASS_MOST_NS);
    if (lease == 0)
        return;
    const hami_fence_kind other = card->fence == HAMI_FENCE_LEASH ? HAMI_FENCE_LEASH_TOO : HAMI_FENCE_LEASH;
    if (hami_fence(card, stream, other))
        pass(card, card->fence, hami_now_ns() + PASS_MOST_NS);
    if (!hami_lease_holds(&until_ns, lease))
        return; /* so late that others have seen to a group since: what is known here is of before */
    card->fence = other;
    const int64_t now = hami_now_ns(), took = now - card->group_ns;
    card->group_ns = now;
    atomic_store(&card->grouped, 0);
    if (took > 2 * (int64_t)GROUP_NS && group > 1)
        atomic_store(&card->group, group / 2);
    else if (took < GROUP_NS / 2 && group < GROUP_MOST)
        atomic_store(&card->group, group == 0 ? 1 : 2 * group);
    hami_lease_end(&until_ns, lease);
}

/* Where priorities are mixed on the card: the high one leaves word that it launches, the low one yields while it does. */
void hami_yield(hami_card *card, CUstream stream)
{
    hami_turns_page *page = card->pacer.page;
    if (page == NULL || !atomic_load_explicit(&card->mixed, memory_order_relaxed))
        return;
    if (!atomic_load_explicit(&card->low, memory_order_relaxed)) {
        atomic_store_explicit(&page->high_ns, hami_now_ns(), memory_order_relaxed);
        return;
    }
    do {
        hold_back(card, stream);
    } while (!may_go(card, stream));
    if (hami_now_ns() > atomic_load(&card->excused_ns))
        keep_queue_short(card, stream);
}
