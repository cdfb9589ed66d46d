/* See settle.h. */
#include "pay/settle.h"

enum {
    SLACK_PART = 16, /* of what was charged: a stream holds more than launches, and prices are as near as that; */
    SLACK_NS = 500 * 1000 /* what a thread keeps of the purse, too */
};

/* As if the launch that asks had not. */
static int64_t unspent(const hami_settlement *s, const hami_purse *purse)
{
    return atomic_load_explicit(&purse->credit_ns, memory_order_relaxed) + s->asking_ns;
}

void hami_settle_begins(hami_settlement *s, uint32_t turn)
{
    s->turn = turn;
    s->begun_ns = s->bought_ns = 0;
    s->busy_from_ns = s->busy_until_ns = 0;
}

void hami_settle_spoilt(hami_settlement *s)
{
    s->clean = false;
    s->since = s->turn + 1;
    s->said_ns = 0;
}

void hami_settle_bought(hami_settlement *s, const hami_purse *purse, int64_t bought_ns, bool others, int64_t now)
{
    if (others)
        hami_settle_spoilt(s);
    if (s->begun_ns == 0) {
        s->begun_ns = now;
        s->credit_ns = unspent(s, purse) - bought_ns;
        s->corrected_ns = atomic_load_explicit(&purse->corrected_ns, memory_order_relaxed);
    }
    s->bought_ns += bought_ns;
}

void hami_settle_busy(hami_settlement *s, int64_t then_ns)
{
    s->busy_until_ns = then_ns;
    if (s->busy_from_ns == 0)
        s->busy_from_ns = then_ns;
}

void hami_settle_said(hami_settlement *s, uint32_t before, uint32_t turn, int64_t owed_ns)
{
    if (before != 0 && before >= s->since && turn >= s->since)
        s->said_ns += owed_ns;
}

/* Prices of what was launched in the turn, as they were then: what the purse has less, but for what was corrected in it. */
static int64_t charged(const hami_settlement *s, const hami_purse *purse)
{
    const int64_t corrected_ns = atomic_load_explicit(&purse->corrected_ns, memory_order_relaxed) - s->corrected_ns;
    return s->bought_ns + s->credit_ns - unspent(s, purse) - corrected_ns;
}

int64_t hami_settle_owed(hami_settlement *s, const hami_purse *purse, bool others, int64_t now)
{
    int64_t owed = 0;
    if (s->ragged && s->clean && !others && s->begun_ns != 0) {
        const int64_t most = now - s->begun_ns, least = s->busy_until_ns - s->busy_from_ns, paid = charged(s, purse);
        const int64_t slack = paid / SLACK_PART + SLACK_NS;
        if (paid < least - slack || paid > most + slack)
            owed = (paid < least ? least : most) - paid - s->said_ns;
        s->said_ns = 0;
    } else {
        hami_settle_spoilt(s);
    }
    s->begun_ns = 0;
    s->clean = true; /* for the next */
    return owed;
}
