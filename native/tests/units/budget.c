/* The budget: a program that launches whenever it may, on a card that is always fast enough. See units.h. */
#include "pay/budget.h"
#include "units.h"

/* `set_back`: somebody writes the word of the ledger back to nothing before each purchase. */
static double share_with(int percent, int64_t kernel_ns, int64_t host_ns, int64_t seconds, bool set_back)
{
    _Atomic int64_t paid = 0;
    hami_purse purse = {0};
    int64_t now = 1000000000000, used = 0;
    const int64_t from = now + 1000000000, until = from + seconds * 1000000000;
    int64_t card_free = now;
    while (now < until) {
        int64_t need = hami_purse_spend(&purse, kernel_ns);
        while (need > 0) {
            if (set_back)
                atomic_store(&paid, 0);
            const int64_t again = hami_budget_buy(&paid, &purse, need + hami_budget_slab(paid, percent, now), percent, HAMI_BURST_NS, now);
            if (again == 0)
                break;
            now = again;
        }
        now += host_ns;
        card_free = (card_free > now ? card_free : now) + kernel_ns;
        if (card_free > now + 2000000000)
            now = card_free - 2000000000; /* a full queue */
        if (now >= from)
            used += kernel_ns;
    }
    return 100.0 * (double)used / (double)(until - from);
}

static double share(int percent, int64_t kernel_ns, int64_t host_ns, int64_t seconds)
{
    return share_with(percent, kernel_ns, host_ns, seconds, false);
}

void budget(void)
{
    static const int limits[] = {5, 20, 50, 80, 95};
    static const int64_t kernels[] = {2000, 10000, 100000, 1000000, 20000000, 50000000, 500000000};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) {
            const double got = share(limits[l], kernels[k], 1000, 60);
            const double slack = kernels[k] > 100000000 ? 2.0 : 0.2; /* one kernel is a lot of 60 s */
            if (got < limits[l] - slack || got > limits[l] + slack) {
                printf("%lld ns at %d: %.2f\n", (long long)kernels[k], limits[l], got);
                exit(1);
            }
        }
    }
    /* Bound by its host at 40 %: untouched by a limit of 50, held by one of 20. */
    CHECK(share(50, 8000, 20000, 20) > 39.5 && share(20, 8000, 20000, 20) < 20.2);
    const double set_back[] = {share_with(20, 100000, 1000, 20, true), share_with(50, 2000, 1000, 20, true)};
    CHECK(set_back[0] > 19.8 && set_back[0] < 20.2 && set_back[1] > 49.8 && set_back[1] < 50.2);
    /* Idle time is not saved up beyond the burst. */
    _Atomic int64_t paid = 0;
    hami_purse purse = {0};
    CHECK(hami_budget_buy(&paid, &purse, 1200000, 50, HAMI_BURST_NS, 5000000000) == 0);
    CHECK(paid >= 5000000000 - HAMI_BURST_NS);
    /* Back from a clock of the past: what a killed process left behind is at most one launch. */
    CHECK(hami_budget_buy(&paid, &purse, 1200000, 50, HAMI_BURST_NS, 9000000000) == 0);
}
