/* See cost.h. */
#include "price/cost.h"

#include <string.h>

enum {
    PROBES = 8,
    JITTER_NS = 1500,       /* samples so near each other are one length */
    STRAY_LEAST_NS = 2000,
    STRAY_MOST_NS = 18 * 1000,
    SLICED_NS = 200 * 1000, /* keys longer than this are likely to be cut by a time slice */
    MOST_BIAS_PART = 8,     /* of what samples show no more is taken off: a program may know that it is measured in bulk */
    MOST_SETTLED = 8192,    /* launches that one sample may speak for */
    MOST_POSTPONED = 512,
    SLICE_LEAST_NS = 20 * 1000, /* a time slice of another is longer, */
    SLICE_MOST_NS = 3 * 1000 * 1000, /* and with its changes of context hardly longer than this */
    SWITCHES_PART = 20,         /* of the card's time that goes into changes of context between full queues, at most */
    ALIKE_PART = 32,            /* samples that differ by less are of one length */
    AS_THEN_NS = 400,           /* samples of a key measured in bulk wander by so much while what its launches take in a queue stays, */
    AS_THEN_PART = 128,         /* and by this of its price more */
    ALIKE_LEAST = 3,            /* of a ring, to be a length that recurs */
    MOST_OWED_NS = 100 * 1000 * 1000, /* what one sample may charge for the past */
    UNSEEN_NS = 20 * 1000 * 1000, /* GPU time of a key between two samples, at most: so soon a change is seen */
    UNSEEN_RUN_NS = 100 * 1000 * 1000, /* the same between two runs */
    UNEVEN_PART = 4,            /* samples that differ by more are of several lengths, */
    EVEN_AFTER = 256,           /* until so many have shown none such: one launch in twenty is long, and fifteen samples show but one of these */
    LATE = 8,                   /* samples over which what was settled unfairly is owed; more, where each speaks for more */
    SLOW = 16, SLOWER = 64      /* samples that a mean is of, as good as; of a key of several lengths */
};

uint64_t hami_cost_key(uint64_t what, uint64_t how_much, uint64_t card)
{
    uint64_t key = what * 0x9e3779b97f4a7c15u;
    key ^= (how_much + card * 0x632be59bd9b4e019u) * 0xc2b2ae3d27d4eb4fu;
    key ^= key >> 29;
    key *= 0xbf58476d1ce4e5b9u;
    key ^= key >> 32;
    return key | 1; /* 0 means free */
}

hami_cost *hami_cost_find(hami_cost *table, uint64_t key)
{
    for (unsigned int i = 0; i < PROBES; i++) {
        hami_cost *cost = &table[((key >> 1) + i) & (HAMI_COST_KEYS - 1)];
        uint64_t there = atomic_load_explicit(&cost->key, memory_order_relaxed);
        if (there == 0 && atomic_compare_exchange_strong(&cost->key, &there, key))
            return cost;
        if (there == key)
            return cost;
    }
    return NULL;
}

/* The next launch of a run; after it the first of another. */
static uint32_t next_of_runs(hami_cost *cost)
{
    const uint32_t left = atomic_load_explicit(&cost->run_left, memory_order_relaxed);
    atomic_store_explicit(&cost->run_left, left > 0 ? left - 1 : HAMI_COST_RUN - 1, memory_order_relaxed);
    if (left > 0)
        return 1;
    const int64_t most = UNSEEN_RUN_NS / (atomic_load_explicit(&cost->price_ns, memory_order_relaxed) + 1);
    return most < HAMI_COST_RUN ? HAMI_COST_RUN : most < HAMI_COST_RUN_GAP ? (uint32_t)most : HAMI_COST_RUN_GAP;
}

static uint32_t next_period(hami_cost *cost, uint32_t number)
{
    if (atomic_load_explicit(&cost->samples, memory_order_relaxed) < HAMI_COST_LEARNING ||
        atomic_load_explicit(&cost->price_ns, memory_order_relaxed) >= HAMI_COST_LONG_NS)
        return 1;
    /* Jitter, so that a program's own rhythm cannot hide from the samples. */
    const uint32_t mixed = (number ^ number >> 7) * 2654435761u;
    const uint32_t usual = hami_cost_uneven(cost) ? next_of_runs(cost) : atomic_load_explicit(&cost->period, memory_order_relaxed);
    return usual == 1 ? 1 : usual / 2 + (mixed >> 16) % (usual | 1);
}

uint32_t hami_cost_due(hami_cost *cost, int64_t price_ns, uint32_t *run)
{
    const uint32_t next = atomic_load_explicit(&cost->next_sample, memory_order_relaxed);
    const int32_t ahead = (int32_t)(next - atomic_load_explicit(&cost->launches, memory_order_relaxed)) - 2;
    if (ahead < (int32_t)*run)
        *run = ahead < 0 ? 0 : (uint32_t)ahead;
    const uint32_t number = atomic_fetch_add_explicit(&cost->launches, 1 + *run, memory_order_relaxed) + 1;
    atomic_fetch_add_explicit(&cost->charged_ns, price_ns * (1 + (int64_t)*run), memory_order_relaxed);
    if ((int32_t)(number - next) < 0)
        return 0;
    atomic_store_explicit(&cost->next_sample, number + next_period(cost, number), memory_order_relaxed);
    return number == 0 ? 1 : number;
}

uint32_t hami_cost_want(hami_cost *cost, int64_t price_ns)
{
    const uint32_t number = atomic_fetch_add_explicit(&cost->launches, 1, memory_order_relaxed) + 1;
    atomic_fetch_add_explicit(&cost->charged_ns, price_ns, memory_order_relaxed);
    return number == 0 ? 1 : number;
}

void hami_cost_return(hami_cost *cost, int64_t price_ns, uint32_t count)
{
    atomic_fetch_sub_explicit(&cost->launches, count, memory_order_relaxed);
    atomic_fetch_sub_explicit(&cost->charged_ns, price_ns * (int64_t)count, memory_order_relaxed);
}

bool hami_cost_postpone(hami_cost *cost, uint32_t number)
{
    if (atomic_fetch_add_explicit(&cost->postponed, 1, memory_order_relaxed) >= MOST_POSTPONED)
        return false;
    atomic_store_explicit(&cost->next_sample, number + 1, memory_order_relaxed);
    return true;
}

static void sort(int64_t *values, int count)
{
    for (int i = 1; i < count; i++) {
        const int64_t value = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--)
            values[at] = values[at - 1];
        values[at] = value;
    }
}

/* Samples that agree come ever more seldom; one that does not halves the period. */
static void adapt(hami_cost *cost, bool calm)
{
    const int64_t mean = cost->mean_ns > 0 ? cost->mean_ns : 1;
    const int64_t least = mean < HAMI_COST_SHORT_NS    ? HAMI_COST_SHORT_PERIOD
                          : mean < HAMI_COST_MIDDLE_NS ? HAMI_COST_PERIOD
                                                       : HAMI_COST_MIDDLE_PERIOD;
    int64_t most = UNSEEN_NS / mean < HAMI_COST_CALM_PERIOD ? UNSEEN_NS / mean : HAMI_COST_CALM_PERIOD;
    most = most < least ? least : most;
    const int64_t period = atomic_load_explicit(&cost->period, memory_order_relaxed);
    const int64_t next = calm ? period + period / 2 : period / 2;
    atomic_store_explicit(&cost->period, (uint32_t)(next < least ? least : next > most ? most : next), memory_order_relaxed);
}

/* What the samples of late are held against: the lower quartile; where launches get into each other's way nearly the least. */
static int64_t reference(const int64_t *sorted, int count, hami_cost_trust trust)
{
    return sorted[trust == HAMI_COST_CROWDED ? count / 8 : count / 4];
}

/*
 * True: one length among others that launches of this key have, as matrix products of the same grid and another depth. Time slices of others are of
 * any length. Where launches of our own come between, a price that is too high for it only makes the program wait, and then what it occupies is
 * measured as a whole (burst.h); one that is too low lets it run on (75 and 99.8 percent for 30, of two streams and two lengths).
 */
static bool recurs(int64_t sample_ns, const int64_t *sorted, int count)
{
    int alike = 0;
    for (int i = 0; i < count; i++)
        alike += sorted[i] > sample_ns - sample_ns / ALIKE_PART && sorted[i] < sample_ns + sample_ns / ALIKE_PART;
    return alike >= ALIKE_LEAST;
}

/*
 * True: somebody else's time is in it, as far as the samples of late can tell. A slice of another with its two changes of context is
 * longer than SLICE_LEAST_NS. Fewer than half of the samples are taken for such: what most launches take is what they take. Of long launches the first
 * are all believed: at a price of the shortest a program queues seconds of others before it hears of them, and nobody can take them back.
 */
static bool foreign(int64_t sample_ns, const int64_t *sorted, int count, hami_cost_trust trust)
{
    const int64_t least = reference(sorted, count, trust), median = sorted[count / 2];
    if (trust == HAMI_COST_ALONE)
        return false;
    if (trust == HAMI_COST_CROWDED)
        return sample_ns > least + least / 2 + JITTER_NS && !recurs(sample_ns, sorted, count);
    if (least > SLICED_NS)
        return trust == HAMI_COST_OURS && count >= HAMI_COST_LEARNING && sample_ns > 2 * least && !recurs(sample_ns, sorted, count);
    return sample_ns > median + median / 2 + SLICE_LEAST_NS && !recurs(sample_ns, sorted, count);
}

/*
 * True: one of some thirty pairs on a card shows 5 to 15 us more than all others, and no queue of such launches does: the measurement's own.
 * Believed, it is charged to hundreds of launches. At most one of a ring is taken for such, so what takes that long more often is paid for.
 */
static bool stray(int64_t sample_ns, const int64_t *sorted, int count)
{
    const int64_t usual = sorted[count / 2] + STRAY_LEAST_NS;
    return count >= HAMI_COST_LEARNING && sample_ns > usual && sample_ns < usual + STRAY_MOST_NS && sorted[count - 2] <= usual;
}

/*
 * Beside others' time slices, of a launch long enough to be cut by them: what it takes uncut. So long ones that nearly all are cut the least of late;
 * a quarter of shorter ones are not, and their least would be a tenth too low where the card's clock goes up and down.
 */
static int64_t uncut(const int64_t *sorted, int count)
{
    const int64_t quartile = sorted[count / 4];
    return quartile > HAMI_COST_MIDDLE_NS ? sorted[0] : quartile;
}

/*
 * What of a sample is ours, at least: the card goes round from process to process, so each of the others has had a slice before our first and then as
 * much as we had.
 */
static int64_t ours_at_least(int64_t sample_ns, int processes)
{
    const int64_t round_ns = sample_ns - (processes - 1) * (int64_t)SLICE_MOST_NS;
    return processes < 2 || round_ns < 0 ? 0 : (round_ns - round_ns / SWITCHES_PART) / processes;
}

/* What the launch really took. `processes`: on the card, 0: unknown. */
static int64_t truth_of(int64_t sample_ns, const int64_t *sorted, int count, hami_cost_trust trust, int processes)
{
    const int64_t quartile = reference(sorted, count, trust);
    if (trust == HAMI_COST_SHARED && quartile > SLICED_NS) {
        const int64_t whole = uncut(sorted, count), ours = ours_at_least(sample_ns, processes);
        return ours > whole ? ours : whole;
    }
    if (sample_ns > quartile - JITTER_NS && sample_ns < quartile + JITTER_NS)
        return quartile; /* a pair's own scatter is to one side: of 5 us pairs the mean is 0.3 us above the lower quartile */
    return sample_ns;
}

/* The slow mean. Of the first samples one may hold another's time before that can be told: the mean is then made anew of the others. */
static void average(hami_cost *cost, const int64_t *sorted, int count, int64_t truth, uint32_t seen, hami_cost_trust trust)
{
    if (seen >= HAMI_COST_RING) {
        const int64_t of = !hami_cost_uneven(cost) ? SLOW : seen < SLOWER ? seen : SLOWER;
        cost->mean_ns += (truth - cost->mean_ns) / of;
        return;
    }
    int64_t sum = 0;
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (!foreign(sorted[i], sorted, count, trust)) {
            sum += sorted[i];
            kept++;
        }
    }
    cost->mean_ns = trust == HAMI_COST_SHARED && sorted[count / 4] > SLICED_NS ? uncut(sorted, count) : sum / kept;
}

/*
 * What is owed where a sample has no say in how many launches it speaks for, as the sum is right only then: all since the one before, or, of several
 * lengths, an equal part of what was not sampled before its run, so that no single one is everything. What is left is for the next run.
 */
static int64_t fairly_owed(hami_cost *cost, int32_t launches, int64_t truth, int64_t charged, bool uneven)
{
    cost->unseen += (uint32_t)launches;
    cost->unseen_ns += charged;
    if (cost->unseen > MOST_SETTLED) {
        cost->unseen_ns = cost->unseen_ns / cost->unseen * MOST_SETTLED;
        cost->unseen = MOST_SETTLED;
    }
    if (launches > 1 || cost->part == 0)
        cost->part = cost->unseen / HAMI_COST_RUN + 1;
    const uint32_t of = uneven && cost->part < cost->unseen ? cost->part : cost->unseen;
    const int64_t paid = of == cost->unseen ? cost->unseen_ns : cost->unseen_ns / cost->unseen * of;
    cost->unseen -= of;
    cost->unseen_ns -= paid;
    return truth * of - paid;
}

/* A part of what was settled unfairly, all of it in the end: the more launches a sample speaks for, the smaller, so that charges stay even. */
static int64_t late_part(hami_cost *cost, int64_t unfair_ns, bool uneven)
{
    const int64_t all = cost->unfair_ns + unfair_ns, most = MOST_OWED_NS;
    cost->unfair_ns = all > most ? most : all < -most ? -most : all;
    const int64_t part = cost->unfair_ns / (uneven ? LATE * (1 + (int64_t)cost->part) : LATE);
    cost->unfair_ns -= part;
    return part;
}

/*
 * What the launches up to `number` owe, being `truth` long. Two threads may read their samples out of order: then a later one has settled the
 * earlier. What was charged too much is given back in full: it was paid.
 * Of several lengths they are settled at their mean, so that charges are even from moment to moment. But it is samples that say whether there are
 * several, and what the mean is: a long one was settled as one of them and a short one as all, and a program of which one launch in five is long
 * was charged seven tenths of what it used. So on a card that nobody else uses, where every sample is believed, what that is off by is owed too.
 */
static int64_t settle(hami_cost *cost, uint32_t number, int64_t truth, int64_t charged_ns, bool uneven, bool alone)
{
    const int32_t launches = (int32_t)(number - cost->settled);
    if (launches <= 0)
        return 0;
    const int64_t charged = charged_ns - cost->settled_ns, others = uneven ? cost->mean_ns : truth;
    cost->settled = number;
    cost->settled_ns = charged_ns;
    const int64_t all = others * (launches - 1) + truth;
    int64_t owed = launches <= MOST_SETTLED ? all - charged : (others - charged / launches) * MOST_SETTLED;
    if (alone) {
        const int64_t unfair_ns = fairly_owed(cost, launches, truth, charged, uneven) - owed;
        owed += late_part(cost, unfair_ns, uneven);
    } else {
        cost->unseen = 0;
        cost->unseen_ns = cost->unfair_ns = 0;
    }
    return owed < MOST_OWED_NS ? owed : MOST_OWED_NS;
}

/* All but one of the samples of late, which may be a stray, are within a pair's own scatter. */
static bool one_length(const int64_t *sorted, int count)
{
    const int64_t scatter = sorted[0] / ALIKE_PART > JITTER_NS ? sorted[0] / ALIKE_PART : JITTER_NS;
    return count >= HAMI_COST_LEARNING && sorted[count - 2] - sorted[0] < scatter;
}

/* True: it was measured in bulk, and its samples are what they were then. */
static bool as_in_bulk(const hami_cost *cost, const int64_t *sorted, int count, hami_cost_trust trust)
{
    const int64_t away = reference(sorted, count, trust) - cost->mean_ns, most = AS_THEN_NS + cost->mean_ns / AS_THEN_PART;
    return cost->known && one_length(sorted, count) && away < most && -away < most;
}

/* More than one sample is longer than most by a good part, and more than one shorter; or that has been so not long ago. */
static bool several_lengths(hami_cost *cost, const int64_t *sorted, int count)
{
    const bool now = count >= HAMI_COST_LEARNING && cost->mean_ns >= HAMI_COST_SHORT_NS &&
                     sorted[count - 2] - sorted[1] > sorted[1] / UNEVEN_PART + JITTER_NS;
    cost->even = now ? 0 : cost->even + 1;
    return now || (hami_cost_uneven(cost) && cost->even < EVEN_AFTER);
}

bool hami_cost_uneven(const hami_cost *cost)
{
    return atomic_load_explicit(&cost->uneven, memory_order_relaxed);
}

bool hami_cost_calm(const hami_cost *cost)
{
    return atomic_load_explicit(&cost->calm, memory_order_relaxed);
}

int64_t hami_cost_bias(const hami_cost *cost)
{
    return atomic_load_explicit(&cost->bias_ns, memory_order_relaxed);
}

int64_t hami_cost_unbias(hami_cost *cost, uint32_t number, int64_t charged_ns, int64_t bias_ns)
{
    const int64_t most = (cost->mean_ns + hami_cost_bias(cost)) / MOST_BIAS_PART;
    bias_ns = bias_ns > most ? most : bias_ns < -most ? -most : bias_ns;
    const int64_t more = bias_ns - hami_cost_bias(cost);
    if (!hami_cost_calm(cost))
        return 0;
    atomic_store_explicit(&cost->bias_ns, bias_ns, memory_order_relaxed);
    cost->known = true;
    cost->bulks++;
    cost->mean_ns -= more;
    for (int i = 0; i < HAMI_COST_RING; i++)
        cost->ring_ns[i] -= more; /* places not filled yet are never read */
    atomic_store_explicit(&cost->price_ns, cost->mean_ns, memory_order_relaxed);
    return settle(cost, number, cost->mean_ns, charged_ns, false, false);
}

static int64_t learn(hami_cost *cost, uint32_t number, int64_t sample_ns, int64_t charged_ns, hami_cost_trust trust, int processes)
{
    const uint32_t seen = atomic_load_explicit(&cost->samples, memory_order_relaxed);
    const bool uneven = hami_cost_uneven(cost), alone = trust == HAMI_COST_ALONE; /* `uneven` as it was before this sample, which has no say in that */
    sample_ns = sample_ns > hami_cost_bias(cost) ? sample_ns - hami_cost_bias(cost) : 0;
    cost->ring_ns[seen % HAMI_COST_RING] = sample_ns;
    const int count = seen + 1 < HAMI_COST_RING ? (int)seen + 1 : HAMI_COST_RING;
    int64_t sorted[HAMI_COST_RING];
    memcpy(sorted, cost->ring_ns, (size_t)count * sizeof sorted[0]);
    sort(sorted, count);
    atomic_store_explicit(&cost->calm, one_length(sorted, count), memory_order_relaxed);
    atomic_store_explicit(&cost->uneven, several_lengths(cost, sorted, count), memory_order_relaxed);
    if (seen < UINT32_MAX)
        atomic_store_explicit(&cost->samples, seen + 1, memory_order_relaxed);
    atomic_store_explicit(&cost->postponed, 0, memory_order_relaxed);
    if (foreign(sample_ns, sorted, count, trust) || stray(sample_ns, sorted, count))
        return 0; /* the next sample settles these launches too */
    const int64_t truth = truth_of(sample_ns, sorted, count, trust, processes);
    const int64_t away = truth - cost->mean_ns;
    adapt(cost, away < cost->mean_ns / 8 && -away < cost->mean_ns / 8);
    cost->known = as_in_bulk(cost, sorted, count, trust);
    if (cost->known)
        return settle(cost, number, truth == reference(sorted, count, trust) ? cost->mean_ns : truth, charged_ns, false, alone);
    average(cost, sorted, count, truth, seen, trust);
    atomic_store_explicit(&cost->price_ns, cost->mean_ns, memory_order_relaxed);
    return settle(cost, number, truth, charged_ns, uneven, alone);
}

int64_t hami_cost_learn(hami_cost *cost, uint32_t number, int64_t sample_ns, int64_t charged_ns, hami_cost_trust trust)
{
    return learn(cost, number, sample_ns, charged_ns, trust, 0);
}

int64_t hami_cost_learn_beside(hami_cost *cost, uint32_t number, int64_t sample_ns, int64_t charged_ns, int processes)
{
    return learn(cost, number, sample_ns, charged_ns, HAMI_COST_SHARED, processes);
}
