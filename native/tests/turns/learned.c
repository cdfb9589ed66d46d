/* Tenants of the simulated card whose launches are of several lengths, and whose prices are learned as in pay.c and sample.c. See sim.h. */
#include <string.h>

#include "price/cost.h"
#include "sim.h"

enum {
    QUEUE = 2048, /* launches that are not read yet */
    PROBATION = 3,
    LEARNING_NS = 5 * 1000 * 1000,
    REST_NS = 4 * 1000 * 1000,        /* from one sample to the next, but in runs */
    RUN_AGAIN_NS = 500 * 1000 * 1000, /* beside others, from one run to the next */
    RAGGED_NS = 2000 * 1000 * 1000,
    SCATTER_NS = 1000
};

typedef struct {
    int64_t length_ns, begun_ns, took_ns, charged_ns;
    uint32_t number; /* of its sample; 0: none is taken */
    uint32_t turn; /* of its tenant alone; 0: others may have been there */
    bool ours, beside;
} launch;

static struct {
    hami_cost cost;
    launch launches[QUEUE];
    uint32_t made, ended, read;
    int64_t rests_until_ns, learning_ns, run_again_ns, ragged_ns;
    bool in_run;
} all[MOST];

void learn_nothing(void)
{
    memset(all, 0, sizeof all);
}

static int64_t next_length(int i)
{
    const tenant *t = &tenants[i];
    uint32_t lengths = 0;
    if (t->odd_percent > 0 && (int)(dice() % 100) < t->odd_percent)
        return t->kernel_ns + (int64_t)(dice() % (uint64_t)(t->odd_ns - t->kernel_ns));
    while (lengths < LENGTHS && t->lengths_ns[lengths] > 0)
        lengths++;
    return lengths == 0 ? t->kernel_ns : t->lengths_ns[(t->shuffled ? dice() : all[i].made) % lengths];
}

/* As hami_sample_in_run: in our turn each launch that is due, beside others now and then a run. */
static bool runs(int i)
{
    hami_cost *cost = &all[i].cost;
    if (!hami_cost_uneven(cost))
        return false;
    if (hami_turn_ours(&tenants[i].pacer))
        return true;
    if (cost->run_left == HAMI_COST_RUN - 1 && (all[i].in_run || now > all[i].run_again_ns)) {
        all[i].run_again_ns = all[i].in_run ? now + RUN_AGAIN_NS : all[i].run_again_ns;
        all[i].in_run = !all[i].in_run;
    }
    return all[i].in_run;
}

static bool others_there(int i)
{
    for (int t = 0; t < count; t++) {
        if (t != i && now >= BOOT + tenants[t].begins_ns)
            return true;
    }
    return false;
}

int64_t launch_length(int i, int64_t price_ns)
{
    launch *l = &all[i].launches[all[i].made % QUEUE];
    uint32_t none = 0;
    const uint32_t number = hami_cost_due(&all[i].cost, price_ns, &none);
    const bool run = runs(i), sampled = number != 0 && (run || all[i].cost.samples < HAMI_COST_RING || now > all[i].rests_until_ns);
    const hami_pacer *p = &tenants[i].pacer;
    *l = (launch){.length_ns = next_length(i), .number = sampled ? number : 0, .charged_ns = all[i].cost.charged_ns, .turn = hami_turn_clean(p),
                  .ours = hami_turn_ours(p), .beside = others_there(i)};
    if (sampled && !run)
        all[i].rests_until_ns = now + REST_NS;
    all[i].made++;
    return l->length_ns;
}

void launch_runs(int i, int64_t gpu_ns)
{
    launch *l = &all[i].launches[all[i].ended % QUEUE];
    l->begun_ns = l->begun_ns == 0 ? gpu_ns : l->begun_ns;
}

int64_t launch_ends(int i, int64_t gpu_ns)
{
    launch *l = &all[i].launches[all[i].ended++ % QUEUE];
    l->took_ns = gpu_ns - l->begun_ns;
    return all[i].launches[all[i].ended % QUEUE].length_ns;
}

/* As read_one does. */
static void learn_one(tenant *t, hami_cost *cost, const launch *l)
{
    const int64_t seen_ns = l->took_ns + (int64_t)(dice() % SCATTER_NS);
    const uint32_t before = l->number - cost->settled == 1 ? l->turn : cost->turn;
    const hami_cost_trust trust = !l->beside || (l->turn != 0 && hami_cost_uneven(cost)) ? HAMI_COST_ALONE : l->ours ? HAMI_COST_OURS : HAMI_COST_SHARED;
    const int64_t owed = trust == HAMI_COST_SHARED ? hami_cost_learn_beside(cost, l->number, seen_ns, l->charged_ns, count)
                                                   : hami_cost_learn(cost, l->number, seen_ns, l->charged_ns, trust);
    hami_budget_correct(&t->purse, owed);
    if (l->turn != 0)
        hami_settle_said(&t->pacer.settlement, before, l->turn, owed);
    if (cost->settled == l->number)
        cost->turn = l->turn;
}

bool of_several_lengths(int i)
{
    if (hami_cost_ragged(&all[i].cost))
        all[i].ragged_ns = now;
    return all[i].ragged_ns != 0 && now - all[i].ragged_ns < RAGGED_NS;
}

void learn(int i)
{
    tenant *t = &tenants[i];
    for (; all[i].read != all[i].ended; all[i].read++) {
        const launch *l = &all[i].launches[all[i].read % QUEUE];
        if (l->number != 0)
            learn_one(t, &all[i].cost, l);
    }
    t->pacer.learns = all[i].learning_ns != 0 && now - all[i].learning_ns < LEARNING_NS;
}

bool learned_price(int i, int64_t *price_ns)
{
    learn(i);
    if (all[i].cost.samples < HAMI_COST_RING)
        all[i].learning_ns = now;
    *price_ns = all[i].cost.price_ns;
    return all[i].cost.samples >= PROBATION || all[i].made == all[i].ended;
}
