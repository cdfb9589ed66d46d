/* Programs of several streams, burst by burst: what they are charged, and when bursts end. See units.h. */
#include "price/overlap.h"
#include "units.h"

#define MS 1000000

/* Bursts of a program whose kernels take `prices` and span `span`, until bursts end or there were so many; their number. */
static int bursts(hami_overlap *o, int64_t prices, int64_t span, int streams, int most)
{
    const hami_burst_had had = {.prices_ns = prices, .span_ns = span, .streams = streams};
    for (int i = 1; i <= most; i++) {
        if (!hami_overlap_goes_on(o, &had))
            return i;
    }
    return most;
}

void overlap(void)
{
    /* Charged is what it spanned, never more than its kernels one by one; those alone where nothing was measured. */
    CHECK(hami_burst_charge(&(hami_burst_had){.prices_ns = 80 * MS, .span_ns = 21 * MS, .streams = 4}) == 21 * MS);
    CHECK(hami_burst_charge(&(hami_burst_had){.prices_ns = 20 * MS, .span_ns = 90 * MS, .streams = 4}) == 20 * MS);
    CHECK(hami_burst_charge(&(hami_burst_had){.prices_ns = 80 * MS, .streams = 4}) == 80 * MS);
    /* A kernel without a price does not make a burst cheap. */
    CHECK(hami_burst_charge(&(hami_burst_had){.prices_ns = 1 * MS, .span_ns = 90 * MS, .streams = 4, .unpriced = true}) == 90 * MS);
    /* Bursts are small until streams are known to overlap, and the pause after one is 80 ms where the limit is low. */
    hami_overlap o = {0};
    hami_overlap_begin(&o);
    CHECK(hami_burst_length_ns(&o, 50) == 5 * MS && hami_burst_length_ns(&o, 4) < 4 * MS);
    CHECK(bursts(&o, 20 * MS, 6 * MS, 4, 1000) == 1000);
    CHECK(hami_burst_length_ns(&o, 50) == 40 * MS && hami_burst_length_ns(&o, 20) == 20 * MS);
    /* One that ceases to overlap is let go after some bursts, each of which it has paid for; and is looked at soon. */
    CHECK(bursts(&o, 20 * MS, 20 * MS, 1, 1000) < 10 && o.charged_ns == 20 * MS);
    hami_overlap_begin(&o);
    CHECK(o.again_ns == HAMI_OVERLAP_AGAIN_NS);
    /* Kernels that fill the card: no more than a few small bursts, ever more seldom. */
    for (int64_t again = 0; again < HAMI_OVERLAP_SELDOM_NS; again = o.again_ns) {
        CHECK(bursts(&o, 20 * MS, 20 * MS, 4, 1000) <= 3);
        CHECK(hami_burst_length_ns(&o, 50) == 5 * MS);
        hami_overlap_begin(&o);
        CHECK(o.again_ns > again);
    }
    hami_overlap_begin(&o);
    CHECK(o.again_ns == HAMI_OVERLAP_SELDOM_NS);
}
