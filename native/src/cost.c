/* See cost.h. */
#include "cost.h"

#include <string.h>

enum { PROBES = 8 };

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

bool hami_cost_due(hami_cost *cost)
{
    const uint32_t launch = atomic_fetch_add_explicit(&cost->launches, 1, memory_order_relaxed);
    if ((int32_t)(launch - atomic_load_explicit(&cost->next_sample, memory_order_relaxed)) < 0)
        return false;
    uint32_t period = 1;
    if (atomic_load_explicit(&cost->samples, memory_order_relaxed) >= HAMI_COST_LEARNING &&
        atomic_load_explicit(&cost->price_ns, memory_order_relaxed) < HAMI_COST_LONG_NS) {
        /* Jitter, so that a program's own rhythm cannot hide from the samples. */
        const uint32_t mixed = (launch ^ launch >> 7) * 2654435761u;
        period = HAMI_COST_PERIOD / 2 + (mixed >> 16) % HAMI_COST_PERIOD;
    }
    atomic_store_explicit(&cost->next_sample, launch + period, memory_order_relaxed);
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

void hami_cost_learn(hami_cost *cost, int64_t sample_ns, bool alone)
{
    const uint32_t seen = atomic_load_explicit(&cost->samples, memory_order_relaxed);
    cost->ring_ns[seen % HAMI_COST_RING] = sample_ns;
    const int count = seen + 1 < HAMI_COST_RING ? (int)seen + 1 : HAMI_COST_RING;
    int64_t sorted[HAMI_COST_RING];
    memcpy(sorted, cost->ring_ns, (size_t)count * sizeof sorted[0]);
    sort(sorted, count);
    const int64_t quartile = sorted[count / 4];
    /* A neighbour's slice, a clock change, a page fault: nothing a kernel does by itself is 10 times its quartile and
       more than 300 us above it. Without neighbours only the wildest single reading is cut. */
    const int64_t bound = (alone ? 40 : 10) * quartile + 300 * 1000;
    const int64_t sample = sample_ns < bound ? sample_ns : bound;
    const int64_t weight = seen < 32 ? (int64_t)seen + 1 : 32;
    cost->mean_ns += (sample - cost->mean_ns) / weight;
    const bool sliced = !alone && quartile > 200 * 1000;
    atomic_store_explicit(&cost->price_ns, sliced ? quartile : cost->mean_ns, memory_order_relaxed);
    if (seen < UINT32_MAX)
        atomic_store_explicit(&cost->samples, seen + 1, memory_order_relaxed);
}
