/* See yield.h. */
#include "yield.h"

#include "prim/prim.h"

enum {
    PAUSE_NS = 1000 * 1000,
    HIGH_NS = 10 * 1000 * 1000,         /* a tenant of high priority that launched within this time is at work */
    YIELD_MOST_NS = 1000 * 1000 * 1000, /* longest pause for it */
    EXCUSED_NS = 5 * 1000 * 1000        /* what is run then */
};

/* Of a time that anybody may have written. */
static bool recent(int64_t high_ns, int64_t now)
{
    return high_ns > now - HIGH_NS && high_ns < now + HIGH_NS;
}

/*
 * Where priorities are mixed on the card: the high one leaves word that it launches, the low one yields while it does. Whatever stands
 * in the shared page, the low one launches for 5 ms of each second.
 */
void hami_yield(hami_card *card)
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
    if (now > atomic_load(&card->excused_ns))
        atomic_store(&card->yielded_ns, 0);
}
