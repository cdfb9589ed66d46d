/*
 * The compute budget: GPU time as money.
 *
 * Each card of the container has one word in the ledger, `paid_until_ns`: the moment up to which launches are paid for
 * (a generic cell rate algorithm, kept as a time, so nothing has to refill it and a killed process leaves no debt
 * behind). Paying c ns of GPU time at p percent moves the word by 100 c / p. A process buys slabs and spends them
 * locally. The rule for waiting: a purchase may be made once the word is not in the future, so one launch may run on
 * debt and the next pays for it; the mean is exact for kernels of any length.
 */
#ifndef HAMI_BUDGET_H
#define HAMI_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    HAMI_SLAB_NS = 200 * 1000,       /* GPU time bought beyond what is needed: one purchase a slab, not one a launch */
    HAMI_BURST_NS = 20 * 1000 * 1000 /* wall time of idling that may be caught up */
};

typedef struct {
    _Atomic int64_t credit_ns; /* GPU time bought and not yet spent; below 0: another thread is buying */
} hami_purse;

/* Spends `cost_ns`. Returns 0 when the purse had it, else the GPU time that the caller now has to buy. */
static inline int64_t hami_purse_spend(hami_purse *purse, int64_t cost_ns)
{
    const int64_t had = atomic_fetch_sub_explicit(&purse->credit_ns, cost_ns, memory_order_relaxed);
    if (had >= cost_ns)
        return 0;
    return had > 0 ? cost_ns - had : cost_ns;
}

/* Takes `amount_ns` out of the purse if all of it is there. */
static inline bool hami_purse_take(hami_purse *purse, int64_t amount_ns)
{
    int64_t had = atomic_load_explicit(&purse->credit_ns, memory_order_relaxed);
    while (had >= amount_ns) {
        if (atomic_compare_exchange_weak_explicit(&purse->credit_ns, &had, had - amount_ns, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

/*
 * Tries to buy `need_ns` plus a slab; `burst_ns` of idling may be caught up. Returns 0 when bought, else the time
 * (CLOCK_MONOTONIC) before which trying again is no use.
 */
int64_t hami_budget_buy(_Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t need_ns, int percent, int64_t burst_ns,
                        int64_t now_ns);

/* Charges `cost_ns` (or gives back, when negative) without waiting: what a launch turned out to cost beyond its price. */
void hami_budget_correct(hami_purse *purse, int64_t cost_ns);

#endif
