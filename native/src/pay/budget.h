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
    HAMI_SLAB_MOST_NS = 1000 * 1000, /* the same where nobody has to wait for it: a purchase finds all caches cold */
    HAMI_BURST_NS = 20 * 1000 * 1000 /* wall time of idling that may be caught up */
};

typedef struct {
    _Atomic int64_t credit_ns; /* GPU time bought and not yet spent; below 0: another thread is buying */
    _Atomic int64_t known_ns;  /* the latest `paid_until_ns` that this process has written */
} hami_purse;

/*
 * Up to when launches are paid for. The word only rises: who sets it back in the ledger, where anybody in the container
 * can write, gains nothing for a process that knows better.
 */
static inline int64_t hami_budget_paid(const _Atomic int64_t *paid_until_ns, const hami_purse *purse)
{
    const int64_t paid = atomic_load_explicit(paid_until_ns, memory_order_relaxed);
    const int64_t known = atomic_load_explicit(&purse->known_ns, memory_order_relaxed);
    return paid > known ? paid : known;
}

/* Spends `cost_ns`. Returns 0 when the purse had it, else the GPU time that the caller now has to buy. */
static inline int64_t hami_purse_spend(hami_purse *purse, int64_t cost_ns)
{
    const int64_t had = atomic_fetch_sub_explicit(&purse->credit_ns, cost_ns, memory_order_relaxed);
    if (had >= cost_ns)
        return 0;
    return had > 0 ? cost_ns - had : cost_ns;
}

/* Takes what is in the purse out of it, at most `most_ns`; how much that was. */
static inline int64_t hami_purse_take(hami_purse *purse, int64_t most_ns)
{
    int64_t had = atomic_load_explicit(&purse->credit_ns, memory_order_relaxed), taken;
    do {
        taken = had > most_ns ? most_ns : had;
        if (taken <= 0)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&purse->credit_ns, &had, had - taken, memory_order_relaxed,
                                                    memory_order_relaxed));
    return taken;
}

/* What to buy beyond what is needed: more than a slab only as far as the time for it has passed unused. */
static inline int64_t hami_budget_slab(int64_t paid_until_ns, int percent, int64_t now_ns)
{
    const int64_t idle = now_ns - paid_until_ns < HAMI_BURST_NS ? now_ns - paid_until_ns : HAMI_BURST_NS;
    const int64_t earned = idle * percent / 100;
    return earned > HAMI_SLAB_MOST_NS ? HAMI_SLAB_MOST_NS : earned > HAMI_SLAB_NS ? earned : HAMI_SLAB_NS;
}

/*
 * Tries to buy `lot_ns`; `burst_ns` of idling may be caught up. Returns 0 when bought, else the time (CLOCK_MONOTONIC) before which
 * trying again is no use.
 */
int64_t hami_budget_buy(_Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t lot_ns, int percent, int64_t burst_ns,
                        int64_t now_ns);

/* Charges `cost_ns` (or gives back, when negative) without waiting: what a launch turned out to cost beyond its price. */
void hami_budget_correct(hami_purse *purse, int64_t cost_ns);

#endif
