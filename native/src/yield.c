/* See yield.h. */
#include "yield.h"

#include "capture.h"
#include "gate.h"
#include "prim/prim.h"

enum {
    PAUSE_NS = 1000 * 1000,
    HIGH_NS = 10 * 1000 * 1000,         /* a tenant of high priority that launched within this time is at work */
    YIELD_MOST_NS = 1000 * 1000 * 1000, /* longest pause for it */
    EXCUSED_NS = 3 * 1000 * 1000,       /* what is run then */
    LOOK_NS = 20 * 1000
};

/* Of a time that anybody may have written. */
static bool recent(int64_t high_ns, int64_t now)
{
    return high_ns > now - HIGH_NS && high_ns < now + HIGH_NS;
}

/* One launch after the other: 3 ms of launching would else queue a second of work, and the high one's requests beside it. */
static void wait_for_the_one_before(hami_card *card, CUstream stream, int64_t until)
{
    if (hami_capturing() || !hami_fence(card, stream))
        return;
    while (!hami_fence_passed(card) && hami_now_ns() < until)
        hami_sleep_until_ns(hami_now_ns() + LOOK_NS);
}

/*
 * Where priorities are mixed on the card: the high one leaves word that it launches, the low one yields while it does. Whatever stands
 * in the shared page, the low one is on the card for 3 ms of each second.
 */
void hami_yield(hami_card *card, CUstream stream)
{
    hami_turns_page *page = card->pacer.page;
    if (page == NULL || !atomic_load_explicit(&card->mixed, memory_order_relaxed))
        return;
    int64_t now = hami_now_ns();
    if (!atomic_load_explicit(&card->low, memory_order_relaxed)) {
        atomic_store_explicit(&page->high_ns, now, memory_order_relaxed);
        return;
    }
    while (atomic_load_explicit(&card->mixed, memory_order_relaxed) && now > atomic_load(&card->excused_ns) &&
           recent(atomic_load_explicit(&page->high_ns, memory_order_relaxed), now)) {
        int64_t since = 0;
        if (!atomic_compare_exchange_strong(&card->yielded_ns, &since, now) && now - since > YIELD_MOST_NS) {
            atomic_store(&card->yielded_ns, 0);
            atomic_store(&card->excused_ns, now + EXCUSED_NS);
            return;
        }
        hami_sleep_coarse_ns(PAUSE_NS);
        now = hami_now_ns();
    }
    const int64_t excused = atomic_load(&card->excused_ns);
    if (now > excused)
        atomic_store(&card->yielded_ns, 0);
    else if (recent(atomic_load_explicit(&page->high_ns, memory_order_relaxed), now))
        wait_for_the_one_before(card, stream, excused);
}
