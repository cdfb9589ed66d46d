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
    SCATTER_NS = 1000
};

typedef struct {
    int64_t length_ns, begun_ns, took_ns, charged_ns;
    uint32_t number; /* of its sample; 0: none is taken */
    bool ours;
} launch;

static struct {
    hami_cost cost;
    launch launches[QUEUE];
    uint32_t made, ended, read;
    int64_t rests_until_ns, learning_ns, run_again_ns;
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

int64_t launch_length(int i, int64_t price_ns)
{
    launch *l = &all[i].launches[all[i].made % QUEUE];
    uint32_t none = 0;
    const uint32_t number = hami_cost_due(&all[i].cost, price_ns, &none);
    const bool run = runs(i), sampled = number != 0 && (run || all[i].cost.samples < HAMI_COST_RING || now > all[i].rests_until_ns);
    *l = (launch){.length_ns = next_length(i), .number = sampled ? number : 0, .charged_ns = all[i].cost.charged_ns, .ours = hami_turn_ours(&tenants[i].pacer)};
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

void learn(int i)
{
    tenant *t = &tenants[i];
    for (; all[i].read != all[i].ended; all[i].read++) {
        const launch *l = &all[i].launches[all[i].read % QUEUE];
        if (l->number == 0)
            continue;
        const int64_t seen_ns = l->took_ns + (int64_t)(dice() % SCATTER_NS);
        const bool beside = count > 1 && !l->ours;
        const int64_t owed = beside ? hami_cost_learn_beside(&all[i].cost, l->number, seen_ns, l->charged_ns, count)
                                    : hami_cost_learn(&all[i].cost, l->number, seen_ns, l->charged_ns, count > 1 ? HAMI_COST_OURS : HAMI_COST_ALONE);
        hami_budget_correct(&t->purse, owed);
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
