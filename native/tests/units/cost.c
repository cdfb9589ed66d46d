/* Prices of kernels: what is charged against what was used. See units.h. */
#include "price/cost.h"
#include "units.h"

/* Of a key whose length varies, and becomes five times as long. */
static double charged_of_used(hami_cost *c, uint32_t most)
{
    int64_t used = 0, charged = 0, price = c->price_ns;
    uint32_t left = 0;
    for (int i = 0; i < 500000; i++) {
        const int64_t length = (int64_t[]){2000, 8000, 20000}[dice() % 3] * (i > 250000 ? 5 : 1);
        used += length;
        if (left > 0) {
            left--;
            charged += price;
            continue;
        }
        price = c->price_ns;
        charged += price;
        uint32_t run = most;
        const uint32_t number = hami_cost_due(c, price, &run);
        left = run;
        CHECK(number == 0 || run == 0);
        if (number != 0)
            charged += hami_cost_learn(c, number, length, c->charged_ns, HAMI_COST_ALONE);
    }
    return (double)charged / (double)used;
}

static int samples_of(hami_cost *c, int64_t length, int launches)
{
    int samples = 0;
    for (int i = 0; i < launches; i++) {
        uint32_t run = 0;
        const uint32_t number = hami_cost_due(c, c->price_ns, &run);
        samples += number != 0;
        if (number != 0)
            hami_cost_learn(c, number, length, c->charged_ns, HAMI_COST_ALONE);
    }
    return samples;
}

/*
 * Threads that launch before there is a price, while the first launch is measured with theirs beside it: what was charged for none of them is not
 * given back, and in the end all is charged that was used.
 */
static void first_launches_of_threads(hami_cost *c)
{
    int64_t charged = 0;
    uint32_t none = 0;
    for (int i = 0; i < 2000; i++)
        hami_cost_due(c, 0, &none);
    charged += hami_cost_learn(c, 1, 1900000, c->charged_ns, HAMI_COST_CROWDED);
    const int64_t price = c->price_ns;
    charged += price;
    hami_cost_due(c, price, &none);
    charged += hami_cost_learn(c, 2001, 20000, c->charged_ns, HAMI_COST_CROWDED);
    CHECK(charged == 2000 * (int64_t)20000 + 1900000);
    hami_cost_return(c, 20000, 7);
    CHECK(c->launches == 1994 && c->charged_ns == price - 7 * 20000);
}

/* Pairs that show 300 ns too much of a kernel of 3400: once it was measured in bulk it is charged what it takes, and so is what went before. */
static void pairs_that_are_wrong(hami_cost *c)
{
    int64_t charged = 0;
    uint32_t number = 0;
    for (int i = 0; i < 1000; i++) {
        charged += 256 * c->price_ns;
        c->launches += 256;
        c->charged_ns += 256 * c->price_ns;
        number = c->launches;
        if (i == 40) {
            CHECK(hami_cost_calm(c) && c->price_ns > 3660 && c->price_ns < 3710);
            charged += hami_cost_unbias(c, number, c->charged_ns, c->price_ns - 3400);
            CHECK(c->price_ns == 3400);
        } else {
            charged += hami_cost_learn(c, number, 3700 + (int64_t)(dice() % 3) * 30 - 30, c->charged_ns, HAMI_COST_ALONE);
        }
    }
    CHECK(c->price_ns > 3380 && c->price_ns < 3420);
    const double each = (double)charged / number;
    CHECK(each > 3380 && each < 3420);
    /* Whatever is said to have been seen in bulk, no more than an eighth is taken off. */
    hami_cost_unbias(c, number, c->charged_ns, 3000);
    CHECK(c->price_ns > 3700 * 7 / 8 - 30 && c->price_ns < 3700 * 7 / 8 + 30);
    /* Of one whose length varies nothing is taken off: what is in bulk is then no more than another sample. */
    for (int i = 0; i < HAMI_COST_RING; i++)
        hami_cost_learn(c, ++number, i % 2 == 0 ? 2000 : 9000, c->charged_ns, HAMI_COST_ALONE);
    const int64_t price = c->price_ns;
    CHECK(!hami_cost_calm(c) && hami_cost_unbias(c, ++number, c->charged_ns, 600) == 0 && c->price_ns == price);
}

/* Pairs that wander by some tenths of a microsecond after a kernel was measured in bulk do not move its price; a kernel that takes longer does, and at once. */
static void pairs_that_wander(hami_cost *c)
{
    uint32_t number = 0;
    for (int i = 0; i < 20; i++)
        hami_cost_learn(c, ++number, 3500 + (int64_t)(dice() % 3) * 50, c->charged_ns, HAMI_COST_ALONE);
    hami_cost_unbias(c, number, c->charged_ns, c->price_ns - 3400);
    for (int i = 0; i < 400; i++) {
        number += 256;
        c->charged_ns += 256 * c->price_ns;
        const int64_t owed = hami_cost_learn(c, number, 3650 + (int64_t)(dice() % 3) * 50 + i / 3, c->charged_ns, HAMI_COST_ALONE);
        CHECK(c->price_ns == 3400 && owed == 0);
    }
    for (int i = 0; i < 100; i++)
        hami_cost_learn(c, ++number, 4800, c->charged_ns, HAMI_COST_ALONE);
    CHECK(c->price_ns > 4600);
    /* What is said of it after that counts from there. */
    hami_cost_unbias(c, number, c->charged_ns, hami_cost_bias(c) + c->price_ns - 4500);
    for (int i = 0; i < 100; i++)
        hami_cost_learn(c, ++number, 4700, c->charged_ns, HAMI_COST_ALONE);
    CHECK(c->price_ns == 4500);
}

/*
 * Matrix products of one grid and two depths, in the order of a program's step: what is charged for a hundred steps is what they took, any hundred. A
 * sample that spoke for all launches since the one before charged 50 to 160 % of it.
 */
static void lengths_in_a_rhythm(hami_cost *c)
{
    static const int64_t step_ns[] = {60000, 240000, 60000, 60000, 60000, 240000, 240000, 60000, 60000};
    enum { STEP = sizeof step_ns / sizeof step_ns[0] };
    uint32_t samples = 0;
    for (int steps = 0; steps < 20000;) {
        int64_t used = 0, charged = 0;
        for (int i = 0; i < 100 * STEP; i++) {
            uint32_t none = 0;
            const int64_t price = c->price_ns;
            const uint32_t number = hami_cost_due(c, price, &none);
            used += step_ns[i % STEP];
            charged += price + (number == 0 ? 0 : hami_cost_learn(c, number, step_ns[i % STEP], c->charged_ns, HAMI_COST_ALONE));
            samples += number != 0;
        }
        steps += 100;
        CHECK(steps <= 400 || (charged > used * 95 / 100 && charged < used * 105 / 100));
    }
    CHECK(hami_cost_uneven(c) && samples < 20000 * STEP / 8);
    /* All of one length from some time on: it is measured as all others again. */
    for (int i = 0; i < 20000; i++) {
        uint32_t none = 0;
        const uint32_t number = hami_cost_due(c, c->price_ns, &none);
        if (number != 0)
            hami_cost_learn(c, number, 60000, c->charged_ns, HAMI_COST_ALONE);
    }
    CHECK(!hami_cost_uneven(c) && c->price_ns > 59000 && c->price_ns < 62000);
}

/* Of 1 and of 20 ms, in no order, in turns or beside other launches of the program's own: what is charged is what they took, within a tenth. */
static void lengths_far_apart(hami_cost *c, hami_cost_trust trust)
{
    int64_t used = 0, charged = 0;
    uint32_t dice = 1;
    for (int i = 0; i < 4000; i++) {
        uint32_t none = 0;
        const int64_t price = c->price_ns, took = (dice = dice * 1664525 + 1013904223) >> 31 ? 1000000 : 20000000;
        const uint32_t number = hami_cost_due(c, price, &none);
        const int64_t owed = number == 0 ? 0 : hami_cost_learn(c, number, took, c->charged_ns, trust);
        used += i < 400 ? 0 : took;
        charged += i < 400 ? 0 : price + owed;
    }
    CHECK(charged > used * 9 / 10 && charged < used * 11 / 10);
}

/*
 * Launches of one key of which `percent` take up to five times as long, none as long as another: alone on the card the program is charged what they take,
 * each pair up to a microsecond too long, the card's clock up and down by 15 percent. A long one was settled as one launch and a short one as all since
 * the one before: 85 percent, of some that take up to twenty times as long 67.
 */
static void lengths_that_never_recur(hami_cost *c, int64_t short_ns, int percent)
{
    int64_t used = 0, charged = 0;
    for (int i = 0; used < (int64_t)30 * 1000 * 1000 * 1000; i++) {
        uint32_t none = 0;
        const int64_t price = c->price_ns, clock = 85 + i / 200 % 30;
        int64_t took = short_ns * clock / 100;
        if ((int)(dice() % 100) < percent)
            took = took * 2 + (int64_t)(dice() % (uint64_t)(3 * took));
        const uint32_t number = hami_cost_due(c, price, &none);
        const int64_t seen_ns = took + (int64_t)(dice() % 1000), owed = number == 0 ? 0 : hami_cost_learn(c, number, seen_ns, c->charged_ns, HAMI_COST_ALONE);
        used += took;
        charged += price + owed;
    }
    CHECK(charged > used * 97 / 100 && charged < used * 103 / 100);
}

/*
 * Of the first launches in our turn none is taken for another's slice where they are long: at the shortest's price a program queues seconds of others
 * before it hears of them.
 */
static void first_lengths_in_turns(hami_cost *c)
{
    uint32_t none = 0;
    for (int i = 0; i < 4; i++)
        hami_cost_learn(c, hami_cost_due(c, c->price_ns, &none), i % 2 == 0 ? 1000000 : 20000000, c->charged_ns, HAMI_COST_OURS);
    CHECK(c->price_ns > 9000000);
}

/* What a pair shows of a launch that takes so long, where the card goes round `busy` processes with full queues, 2 ms each and 70 us to change. */
static int64_t sliced(int64_t ns, int busy)
{
    const int64_t slice = 2000000, cuts = ((int64_t)(dice() % (uint64_t)slice) + ns) / slice;
    return busy == 1 ? ns : ns + cuts * ((busy - 1) * (slice + 70000) + 70000);
}

/* Lengths in no order beside others, with `processes` on the card of which so many are busy: percent that is charged of what was used. */
static double charged_beside(hami_cost *c, int64_t short_ns, int64_t long_ns, int busy, int processes)
{
    int64_t used = 0, charged = 0;
    for (int i = 0; i < 6000; i++) {
        uint32_t none = 0;
        const int64_t price = c->price_ns, took = dice() % 2 == 0 ? short_ns : long_ns;
        const uint32_t number = hami_cost_due(c, price, &none);
        const int64_t owed = number == 0 ? 0 : hami_cost_learn_beside(c, number, sliced(took, busy), c->charged_ns, processes);
        used += i < 1000 ? 0 : took;
        charged += i < 1000 ? 0 : price + owed;
    }
    return 100.0 * (double)charged / (double)used;
}

/*
 * Outside of turns what is longer than its likes may be cut by others' slices, so that all were charged the shortest: 10 percent of 1 and 20 ms. What
 * must be its own is charged now, and never more than it took, whether the others are busy or not.
 */
static void lengths_beside_others(hami_cost *table)
{
    const int64_t ms = 1000000;
    uint64_t which = 0;
    for (int processes = 2; processes <= 4; processes++) {
        for (int busy = 1; busy <= processes; busy++) {
            hami_cost *c = hami_cost_find(table, hami_cost_key(0x85, ++which, 0));
            const double both = charged_beside(c, ms, 20 * ms, busy, processes);
            CHECK(both > 65.0 * busy / processes && both < 101);
        }
        const double one = charged_beside(hami_cost_find(table, hami_cost_key(0x86, which, 0)), 5 * ms, 5 * ms, 1, processes);
        CHECK(one > 99 && one < 101);
    }
    CHECK(charged_beside(hami_cost_find(table, hami_cost_key(0x85, ++which, 0)), ms, 20 * ms, 2, 0) < 20); /* nobody knows how many there are */
}

/*
 * Of 2 us kernels, which take 3400, one pair in `often` shows `odd_ns` more, and bulk `bulk_ns` a launch. What is charged a launch once that is known.
 */
static double charged_with_odd_pairs(hami_cost *c, uint32_t often, int64_t odd_ns, int64_t bulk_ns)
{
    uint32_t number = 0, from = 0;
    int64_t charged = 0;
    for (int i = 0; i < 6000; i++) {
        charged += 256 * c->price_ns;
        number += 256;
        c->charged_ns += 256 * c->price_ns;
        charged += hami_cost_learn(c, number, 3400 + (int64_t)(dice() % 3) * 30 + (dice() % often == 0 ? odd_ns : 0), c->charged_ns, HAMI_COST_ALONE);
        if (i % 10 == 9 && hami_cost_calm(c))
            charged += hami_cost_unbias(c, number, c->charged_ns, hami_cost_bias(c) + c->price_ns - bulk_ns);
        if (i == 1000)
            charged = 0, from = number;
    }
    return (double)charged / (number - from);
}

void cost(void)
{
    static hami_cost table[HAMI_COST_KEYS];
    hami_cost *c = hami_cost_find(table, hami_cost_key(0x1234, 1, 0));
    CHECK(c != NULL && c == hami_cost_find(table, hami_cost_key(0x1234, 1, 0)));
    CHECK(c != hami_cost_find(table, hami_cost_key(0x1234, 2, 0)) && c != hami_cost_find(table, hami_cost_key(0x1234, 1, 1)));
    /* What is charged in the end is what was used, though one launch in hundreds is looked at, lengths vary tenfold and runs are counted ahead. */
    for (uint32_t most = 0; most <= 64; most += 64) {
        c = hami_cost_find(table, hami_cost_key(0x1235, most, 0));
        CHECK(charged_of_used(c, most) < 1.03 && charged_of_used(c, most) > 0.97);
    }
    /* One that never varies is looked at ever more seldom, but never is more than 20 ms of it unseen. */
    c = hami_cost_find(table, hami_cost_key(0x1236, 1, 0));
    CHECK(samples_of(c, 2000, 1000000) < 600);
    c = hami_cost_find(table, hami_cost_key(0x1237, 1, 0));
    CHECK(samples_of(c, 200000, 100000) > 100000 / 200);
    /* A neighbour's slices in one sample of four change the price of a long kernel little. */
    uint32_t none = 0;
    c = hami_cost_find(table, hami_cost_key(0x77, 1, 0));
    for (int i = 0; i < 2000; i++)
        hami_cost_learn(c, hami_cost_due(c, 0, &none) + (uint32_t)i, 1000000 + (dice() % 4 == 0 ? 2000000 : 0), 0, HAMI_COST_SHARED);
    CHECK(c->price_ns > 990000 && c->price_ns < 1100000);
    /* A neighbour that gets into one sample in ten, the first included, though it was our turn: no more is charged, and no more owed. */
    c = hami_cost_find(table, hami_cost_key(0x78, 1, 0));
    int64_t charged = 0, owed = 0;
    for (uint32_t i = 0; i < 300; i++) {
        charged += i == 0 ? 0 : 100 * c->price_ns;
        owed += hami_cost_learn(c, 1 + i * 100, i % 10 == 0 ? 5100000 : 100000, charged, HAMI_COST_OURS);
    }
    CHECK(c->price_ns > 95000 && c->price_ns < 105000);
    CHECK(charged + owed > 29900 * (int64_t)99000 && charged + owed < 29900 * (int64_t)101000 + 5100000);
    /* Short slices of a neighbour bound by its host, in one sample of eight: neither is charged nor owed. */
    c = hami_cost_find(table, hami_cost_key(0x7b, 1, 0));
    charged = owed = 0;
    for (uint32_t i = 0; i < 400; i++) {
        charged += i == 0 ? 0 : 64 * c->price_ns;
        owed += hami_cost_learn(c, 1 + i * 64, i % 8 == 3 ? 250000 : 100000, charged, HAMI_COST_SHARED);
    }
    CHECK(charged + owed > 25000 * (int64_t)100000 && charged + owed < 25700 * (int64_t)100000);
    /* A pair that by itself shows 12 us too much, one of thirty, as on a card: not charged. One of eight: it takes that long. */
    for (uint32_t often = 8; often <= 30; often += 22) {
        c = hami_cost_find(table, hami_cost_key(0x7c, often, 0));
        charged = owed = 0;
        for (uint32_t i = 0; i < 3000; i++) {
            charged += i == 0 ? 0 : 256 * c->price_ns;
            owed += hami_cost_learn(c, 1 + i * 256, i % often == 5 ? 15400 : 3400, charged, HAMI_COST_ALONE);
        }
        const double each = (double)(charged + owed) / (2999 * 256.0);
        CHECK(often == 8 ? each > 4500 && each < 5300 : each > 3390 && each < 3450);
    }
    /* One sample never charges more than 100 ms for the past. */
    c = hami_cost_find(table, hami_cost_key(0x79, 1, 0));
    for (uint32_t i = 1; i < 20; i++)
        hami_cost_learn(c, i, 1000000, i * 1000000, HAMI_COST_ALONE);
    CHECK(hami_cost_learn(c, 5000, 3000000, 5000 * (int64_t)1000000, HAMI_COST_ALONE) == 100 * 1000 * 1000);
    first_launches_of_threads(hami_cost_find(table, hami_cost_key(0x7a, 1, 0)));
    pairs_that_are_wrong(hami_cost_find(table, hami_cost_key(0x7d, 1, 0)));
    lengths_in_a_rhythm(hami_cost_find(table, hami_cost_key(0x81, 1, 0)));
    for (int percent = 5; percent <= 60; percent += 5) {
        for (int64_t us = 100; us <= 1000; us *= 10)
            lengths_that_never_recur(hami_cost_find(table, hami_cost_key(0x84, (uint64_t)(us + percent), 0)), us * 1000, percent);
    }
    lengths_beside_others(table);
    first_lengths_in_turns(hami_cost_find(table, hami_cost_key(0x87, 1, 0)));
    lengths_far_apart(hami_cost_find(table, hami_cost_key(0x82, 1, 0)), HAMI_COST_OURS);
    lengths_far_apart(hami_cost_find(table, hami_cost_key(0x83, 1, 0)), HAMI_COST_CROWDED);
    /* Pairs that are too long by themselves, as bulk shows, are not charged; launches that do take so long are. */
    const double by_itself = charged_with_odd_pairs(hami_cost_find(table, hami_cost_key(0x81, 1, 0)), 16, 2500, 3400);
    CHECK(by_itself > 3390 && by_itself < 3480);
    const double longer = charged_with_odd_pairs(hami_cost_find(table, hami_cost_key(0x81, 2, 0)), 5, 4000, 3400 + 800);
    CHECK(longer > 4000 && longer < 4700);
    pairs_that_wander(hami_cost_find(table, hami_cost_key(0x80, 1, 0)));
    /* Kernels of 300 us that a changing clock makes a tenth longer or shorter, one of five cut by a slice: what they take, nearly. */
    c = hami_cost_find(table, hami_cost_key(0x7e, 1, 0));
    charged = owed = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        charged += i == 0 ? 0 : 64 * c->price_ns;
        owed += hami_cost_learn(c, 1 + i * 64, 270000 + (int64_t)(dice() % 60000) + (dice() % 5 == 0 ? 2000000 : 0), charged, HAMI_COST_SHARED);
    }
    const double of_used = (double)(charged + owed) / (1999 * 64 * 300000.0);
    CHECK(of_used > 0.93 && of_used < 1.01);
    /* Launches of one key that take 45 us, and a third of them 170, as matrix products of two depths do, one of five with a slice in it: both are charged. */
    c = hami_cost_find(table, hami_cost_key(0x7f, 1, 0));
    charged = owed = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        charged += i == 0 ? 0 : 65 * c->price_ns;
        const int64_t took = (i % 3 != 0 ? 45000 : 170000) + (int64_t)(dice() % 2000) + (dice() % 5 == 0 ? 300000 + (int64_t)(dice() % 1500000) : 0);
        owed += hami_cost_learn(c, 1 + i * 65, took, charged, HAMI_COST_SHARED);
    }
    const double of_both = (double)(charged + owed) / (1999 * 65 * 87700.0);
    CHECK(of_both > 0.93 && of_both < 1.07);
    /* A full neighbourhood says so instead of looping. */
    for (uint64_t i = 0; i < 3 * HAMI_COST_KEYS; i++)
        hami_cost_find(table, hami_cost_key(i, 9, 0));
}
