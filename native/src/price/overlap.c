/* See overlap.h. */
#include "price/overlap.h"

enum {
    GAIN_PERCENT = 90, /* of its prices: a burst that spans more has overlapped too little to matter */
    DULL_FIRST = 2,    /* bursts without gain that end it, in its first ones */
    DULL_LATER = 6,    /* and once it has gained */
    SWEEP = 1          /* the first burst may find earlier work on the card: it says nothing */
};

int64_t hami_burst_length_ns(const hami_overlap *o, int percent)
{
    const int64_t share = (int64_t)percent * HAMI_BURST_PAUSE_NS / (percent < 100 ? 100 - percent : 1);
    const int64_t most = o->seen > SWEEP && o->dull == 0 ? HAMI_BURST_MOST_NS : HAMI_BURST_LOOK_NS;
    return share < most ? share : most;
}

void hami_overlap_begin(hami_overlap *o)
{
    const int64_t next = o->again_ns == 0 ? HAMI_OVERLAP_AGAIN_NS : 2 * o->again_ns;
    *o = (hami_overlap){.again_ns = next < HAMI_OVERLAP_SELDOM_NS ? next : HAMI_OVERLAP_SELDOM_NS};
}

int64_t hami_burst_charge(const hami_burst_had *had)
{
    if (had->span_ns <= 0)
        return had->prices_ns;
    return had->unpriced || had->span_ns < had->prices_ns ? had->span_ns : had->prices_ns;
}

bool hami_overlap_goes_on(hami_overlap *o, const hami_burst_had *had)
{
    const bool gains = had->streams > 1 && had->span_ns > 0 && had->span_ns * 100 < had->prices_ns * GAIN_PERCENT;
    o->charged_ns = hami_burst_charge(had);
    if (++o->seen <= SWEEP)
        return true;
    o->dull = gains ? 0 : o->dull + 1;
    if (gains)
        o->again_ns = HAMI_OVERLAP_AGAIN_NS / 2;
    return o->dull < (o->seen <= SWEEP + DULL_FIRST ? DULL_FIRST : DULL_LATER);
}
