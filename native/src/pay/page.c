/* See page.h. */
#include "pay/page.h"

enum { MEMBER_BITS = 16, MEMBER_MASK = 0xffff };

/* Of a time that anybody may have written: was it within `span` before now? */
static bool within(int64_t then_ns, int64_t span_ns, int64_t now_ns)
{
    return then_ns > now_ns - span_ns && then_ns < now_ns + span_ns;
}

bool hami_page_full(const hami_turns_page *page, int tenant, int64_t now)
{
    const int64_t until = hami_page_load(&page->full_ns[tenant]);
    return until > now - HAMI_LINGER_NS && until < now + HAMI_USED_MOST_NS;
}

bool hami_page_others_full(const hami_turns_page *page, int tenant, int64_t now)
{
    for (int t = 0; t < HAMI_TENANTS; t++) {
        if (t != tenant && hami_page_full(page, t, now))
            return true;
    }
    return false;
}

static bool uses(const hami_turns_page *page, int tenant, int64_t span_ns, int64_t now)
{
    const int64_t until = hami_page_load(&page->used_ns[tenant]);
    return until > now - span_ns && until < now + HAMI_USED_MOST_NS;
}

bool hami_page_others_idle(const hami_turns_page *page, int tenant, int64_t span_ns, int64_t now)
{
    for (int t = 0; t < HAMI_TENANTS; t++) {
        if (t != tenant && uses(page, t, span_ns, now))
            return false;
    }
    return true;
}

int hami_page_part(const hami_turns_page *page, int tenant, int percent, int64_t now)
{
    int all = percent;
    for (int t = 0; t < HAMI_TENANTS; t++) {
        if (t == tenant || !uses(page, t, HAMI_IDLE_NS, now))
            continue;
        const int own = atomic_load_explicit(&page->percent_of[t], memory_order_relaxed);
        if (own == 0 || !hami_page_full(page, t, now))
            return percent;
        all += own;
    }
    const int part = all > 100 ? percent : percent * 100 / all;
    return part > HAMI_ALL_PERCENT ? HAMI_ALL_PERCENT : part;
}

bool hami_page_others_buy(const hami_turns_page *page, int tenant, int64_t now)
{
    for (int t = 0; t < HAMI_TENANTS; t++) {
        const int64_t used = hami_page_load(&page->used_ns[t]);
        if (t != tenant && used < now + HAMI_BOUGHT_NS && used > now - HAMI_LINGER_NS)
            return true;
    }
    return false;
}

static int tenant_of(const hami_turns_page *page, int member)
{
    return atomic_load_explicit(&page->tenant_of[member], memory_order_relaxed) % HAMI_TENANTS;
}

static int64_t had_for_weight(const hami_turns_page *page, int member)
{
    return hami_page_load(&page->virtual_ns[tenant_of(page, member)]);
}

int hami_page_next(const hami_turns_page *page, int64_t now)
{
    int best = -1;
    for (int m = 0; m < HAMI_MEMBERS; m++) {
        if (!within(hami_page_load(&page->asked_ns[m]), HAMI_FRESH_NS, now))
            continue;
        const int64_t had = had_for_weight(page, m), least = best < 0 ? 0 : had_for_weight(page, best);
        if (best < 0 || had < least || (had == least && hami_page_load(&page->had_ns[m]) < hami_page_load(&page->had_ns[best])))
            best = m;
    }
    return best;
}

bool hami_page_away(const hami_turns_page *page, int member, int64_t now)
{
    return !within(hami_page_load(&page->asked_ns[member]), HAMI_LINGER_NS, now) &&
           !within(hami_page_load(&page->had_ns[member]), HAMI_LINGER_NS, now);
}

void hami_page_enter(hami_turns_page *page, int member, int tenant, int weight, int64_t now)
{
    int64_t floor = INT64_MAX;
    bool back = true; /* of its container nobody else is there */
    for (int m = 0; m < HAMI_MEMBERS; m++) {
        if (m == member || hami_page_away(page, m, now))
            continue;
        const int64_t had = had_for_weight(page, m);
        floor = had < floor ? had : floor;
        back &= tenant_of(page, m) != tenant;
    }
    atomic_store_explicit(&page->tenant_of[member], (uint16_t)tenant, memory_order_relaxed);
    const int64_t turn = (int64_t)HAMI_TURN_NS * 100 / weight;
    if (!back || floor >= INT64_MAX - turn)
        return;
    const int64_t had = hami_page_load(&page->virtual_ns[tenant]), most = floor + turn;
    if (had < floor || had > most)
        atomic_store_explicit(&page->virtual_ns[tenant], had < floor ? floor : most, memory_order_relaxed);
}

bool hami_page_others_ask(const hami_turns_page *page, int member, int64_t now)
{
    for (int m = 0; m < HAMI_MEMBERS; m++) {
        if (m != member && within(hami_page_load(&page->asked_ns[m]), HAMI_FRESH_NS, now))
            return true;
    }
    return false;
}

int hami_page_holder(uint64_t word)
{
    return (int)(word & MEMBER_MASK) - 1;
}

uint64_t hami_page_word(uint64_t before, int member)
{
    return ((before >> MEMBER_BITS) + 1) << MEMBER_BITS | (uint64_t)(member + 1);
}
