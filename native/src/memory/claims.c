/* See claims.h. */
#include "memory/claims.h"

#include "prim/prim.h"

enum { TICK_NS = 2 * 1000 * 1000 };

/* Nothing is claimed by a slot that nobody has, nor by a process that is dead. */
static bool claimant_gone(hami_ledger *ledger, int slot)
{
    if (slot < 0 || slot >= HAMI_SLOTS)
        return true;
    hami_ledger_lock(ledger);
    const hami_slot *s = &ledger->slots[slot];
    const int32_t pid = atomic_load(&s->pid);
    const bool gone = pid == 0 || (s->pid_namespace == hami_pid_namespace() && !hami_process_alive(pid, s->start));
    hami_ledger_unlock(ledger);
    return gone;
}

bool hami_ledger_claim(hami_ledger *ledger, int slot, int card, int64_t patience_ns)
{
    _Atomic int32_t *claimant = &ledger->cards[card].claimant;
    int64_t until = hami_now_ns() + patience_ns;
    for (int32_t last = 0;;) {
        int32_t other = 0;
        if (atomic_compare_exchange_strong(claimant, &other, slot + 1))
            return true;
        if (claimant_gone(ledger, other - 1) && atomic_compare_exchange_strong(claimant, &other, slot + 1))
            return true;
        if (other != last)
            until = hami_now_ns() + patience_ns;
        else if (hami_now_ns() >= until)
            return false;
        last = other;
        hami_sleep_coarse_ns(TICK_NS);
    }
}

void hami_ledger_unclaim(hami_ledger *ledger, int slot, int card)
{
    int32_t ours = slot + 1;
    atomic_compare_exchange_strong(&ledger->cards[card].claimant, &ours, 0);
}
