/* See budget.h. */
#include "pay/budget.h"

/* Known, too, where several threads buy at once. */
static void know(hami_purse *purse, int64_t paid_until_ns)
{
    int64_t known = atomic_load_explicit(&purse->known_ns, memory_order_relaxed);
    while (known < paid_until_ns && !atomic_compare_exchange_weak_explicit(&purse->known_ns, &known, paid_until_ns, memory_order_relaxed,
                                                                           memory_order_relaxed)) {
    }
}

int64_t hami_budget_buy(_Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t lot_ns, int percent, int64_t burst_ns,
                        int64_t now_ns)
{
    const int64_t wall = lot_ns * 100 / percent;
    int64_t word = atomic_load_explicit(paid_until_ns, memory_order_relaxed);
    int64_t next;
    do {
        const int64_t known = atomic_load_explicit(&purse->known_ns, memory_order_relaxed);
        const int64_t paid = word > known ? word : known;
        if (paid > now_ns)
            return paid;
        next = (paid < now_ns - burst_ns ? now_ns - burst_ns : paid) + wall;
    } while (!atomic_compare_exchange_weak_explicit(paid_until_ns, &word, next, memory_order_relaxed, memory_order_relaxed));
    know(purse, next);
    atomic_fetch_add_explicit(&purse->credit_ns, lot_ns, memory_order_relaxed);
    return 0;
}

void hami_budget_correct(hami_purse *purse, int64_t cost_ns)
{
    atomic_fetch_sub_explicit(&purse->credit_ns, cost_ns, memory_order_relaxed);
}
