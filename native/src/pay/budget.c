/* See budget.h. */
#include "pay/budget.h"

int64_t hami_budget_buy(_Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t lot_ns, int percent, int64_t burst_ns,
                        int64_t now_ns)
{
    const int64_t wall = lot_ns * 100 / percent;
    int64_t paid = atomic_load_explicit(paid_until_ns, memory_order_relaxed);
    int64_t next;
    do {
        if (paid > now_ns)
            return paid;
        next = (paid < now_ns - burst_ns ? now_ns - burst_ns : paid) + wall;
    } while (!atomic_compare_exchange_weak_explicit(paid_until_ns, &paid, next, memory_order_relaxed, memory_order_relaxed));
    atomic_fetch_add_explicit(&purse->credit_ns, lot_ns, memory_order_relaxed);
    return 0;
}

void hami_budget_correct(hami_purse *purse, int64_t cost_ns)
{
    atomic_fetch_sub_explicit(&purse->credit_ns, cost_ns, memory_order_relaxed);
}
