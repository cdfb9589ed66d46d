/*
 * What a launch costs: GPU nanoseconds a key, learned from samples.
 *
 * A key is what is launched and how much of it: function and grid, graph, or operation and size. Looking a price up is
 * lock-free and touches one or two cache lines; samples come rarely and one at a time (the caller sees to that).
 *
 * A launch is charged the key's price, a slow mean. Each sample then settles what was charged since the one before: so many
 * launches, so much a launch, against what they were charged. That makes the sum right whatever the spread, since samples are drawn
 * without regard to it, and right at once when a kernel begins to take longer; the price itself only needs to be near.
 * Beside other tenants a sample may hold the neighbour's time slices: those that do are left out where kernels are short, for longer ones
 * the lower quartile of the last 15 counts, and for long ones the least, or what of each must be ours. Whatever a sample says, what it settles is bounded.
 */
#ifndef HAMI_COST_H
#define HAMI_COST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    HAMI_COST_KEYS = 4096, /* a power of two */
    HAMI_COST_RING = 15,
    HAMI_COST_LEARNING = 8,          /* samples before a price is trusted */
    HAMI_COST_PERIOD = 64,           /* then one launch in about so many is sampled, while samples differ */
    HAMI_COST_SHORT_PERIOD = 256,    /* of a short key: a sample costs several of its launches */
    HAMI_COST_CALM_PERIOD = 4096,    /* and at least one in so many of a key whose samples agree */
    HAMI_COST_MIDDLE_PERIOD = 16,    /* of a key that is long, but not so long that the 5 us of a sample are nothing */
    HAMI_COST_RUN = 32,              /* launches in a row that are sampled of a key with several lengths, */
    HAMI_COST_RUN_GAP = 960,         /* and from one such run to the next */
    HAMI_COST_SHORT_NS = 20 * 1000,
    HAMI_COST_MIDDLE_NS = 500 * 1000,
    HAMI_COST_LONG_NS = 5 * 1000 * 1000 /* a key this long is always sampled */
};

/* Whose time may be in a sample. */
typedef enum {
    HAMI_COST_ALONE,   /* nobody else uses the card */
    HAMI_COST_OURS,    /* it was our turn on it, though nothing forces others to keep out */
    HAMI_COST_CROWDED, /* nobody else, but other launches of our own */
    HAMI_COST_SHARED,  /* a neighbour's time slices may be inside */
} hami_cost_trust;

typedef struct hami_cost {
    _Alignas(64) _Atomic uint64_t key; /* 0: free */
    _Atomic int64_t price_ns;
    _Atomic uint32_t launches;    /* since the table was made, wraps */
    _Atomic uint32_t next_sample; /* value of `launches` at which the next sample is due */
    _Atomic uint32_t samples;     /* ever, saturates */
    _Atomic uint32_t in_flight;   /* samples not yet read */
    _Atomic uint32_t period;      /* launches from one sample to the next */
    _Atomic uint32_t postponed;   /* samples that were due and not taken, since the last one */
    _Atomic uint32_t run_left;    /* launches to be sampled of the present run */
    _Atomic bool uneven;          /* its launches are of several lengths, and not short */
    _Atomic int64_t charged_ns;   /* for `launches`: they were made at different prices, the first of several threads at none */
    uint32_t settled;             /* launches that samples have settled; the rest of this under the sampler's lock */
    int64_t settled_ns;           /* what those were charged */
    uint32_t unseen, part;        /* of those, launches that samples have not spoken for fairly; and how many each of a run does */
    int64_t unseen_ns;            /* what these were charged */
    int64_t unfair_ns;            /* what is owed since some were settled at the mean */
    uint32_t even;                /* samples since several lengths were last seen, wraps */
    int64_t mean_ns;              /* slow mean */
    _Atomic int64_t bias_ns;      /* what a sample shows too much, as measured in bulk */
    _Atomic bool calm;            /* the last samples are one length */
    bool known;                   /* the price is what was seen in bulk: samples like those of then do not move it */
    uint32_t bulks;               /* times it was measured in bulk */
    int64_t ring_ns[HAMI_COST_RING];
} hami_cost;

uint64_t hami_cost_key(uint64_t what, uint64_t how_much, uint64_t card);

/* The key's entry in a table of HAMI_COST_KEYS, made if needed. NULL when the neighbourhood is full of other keys. */
hami_cost *hami_cost_find(hami_cost *table, uint64_t key);

/*
 * Counts a launch charged at `price_ns`; its number, from 1, when it should be sampled, else 0. Launches that follow are counted along,
 * at most *run and as many as need not be sampled: *run becomes their number.
 */
uint32_t hami_cost_due(hami_cost *cost, int64_t price_ns, uint32_t *run);

/* Counts a launch charged at `price_ns` that is to be measured though none is due; its number. */
uint32_t hami_cost_want(hami_cost *cost, int64_t price_ns);

/* `count` launches that were counted along at that price are not made. */
void hami_cost_return(hami_cost *cost, int64_t price_ns, uint32_t count);

/* The sample that is due cannot be taken now: the next launch is due again. False: it has been put off often enough. */
bool hami_cost_postpone(hami_cost *cost, uint32_t number);

/*
 * Takes a sample of launch `number` in. Returns what is still owed (below 0: what was charged too much) for the launches up
 * to it, which were charged `charged_ns` in all: `cost->charged_ns` as it was when that launch was counted.
 */
int64_t hami_cost_learn(hami_cost *cost, uint32_t number, int64_t sample_ns, int64_t charged_ns, hami_cost_trust trust);

/*
 * The same of a launch beside `processes` - 1 others on the card, whose time slices may be inside, where nothing else of ours is: they get no more of the
 * card than we do, so what is left when each has had as much is ours, whatever other samples say.
 */
int64_t hami_cost_learn_beside(hami_cost *cost, uint32_t number, int64_t sample_ns, int64_t charged_ns, int processes);

/* True: so much the same are its samples that what is in bulk shows how wrong they are. */
bool hami_cost_calm(const hami_cost *cost);

/*
 * True: its launches are of several lengths, as matrix products of one grid and another depth. One of them says little of those before it, so
 * they are sampled in runs, which hold a program's rhythm whole, and what was not sampled is settled at the mean.
 */
bool hami_cost_uneven(const hami_cost *cost);

/* What its samples show too much, as far as that is known. Under the sampler's lock, or about. */
int64_t hami_cost_bias(const hami_cost *cost);

/*
 * Its samples show `bias_ns` too much (below 0: too little), and its price with them; an eighth of them is believed, at most. From then on samples
 * move the price only when they are others than they were: their scatter is wider than that of what is seen in bulk. Returns what is still owed for
 * launches up to `number`, which were charged `charged_ns` in all, as hami_cost_learn.
 */
int64_t hami_cost_unbias(hami_cost *cost, uint32_t number, int64_t charged_ns, int64_t bias_ns);

#endif
