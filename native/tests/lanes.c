/*
 * What a thread keeps to itself (pay/lane.h): how often a program with a dozen kernels finds a key gone that it had launches left of.
 *
 * Where a key is kept depends on addresses, so many programs are tried, each in a thread of its own. Counted, not timed: each key that is launched
 * in turn has to be looked up anew once in HAMI_LANE_RUN + 1 launches, and every time beyond that another has pushed it out.
 *
 *   lanes   percent of programs in which that happens, by how their keys lie
 */
#include <pthread.h>
#include <stdint.h>

#include "check.h"
#include "pay/lane.h"
#include "price/cost.h"
#include "process/log.h"

enum {
    DOZEN = 12,
    PROGRAMS = 4000, /* of each kind; of keys that lie by chance three of a dozen are in one set of two in 1.3 of a hundred */
    ROUNDS = 2,      /* times that each key's launches are counted ahead */
    TURNS = ROUNDS * (HAMI_LANE_RUN + 1)
};

/* ---- what the lane asks of the rest of the library ---- */

hami_state_t hami_state;
hami_hot_t hami_hot;
hami_uses hami_use;
hami_behind_t hami_behind;
_Atomic int hami_log_level;

void hami_say(int level, const char *format, ...)
{
    CHECK(level < 0 && format == NULL); /* there is nothing to say */
}

/* ---- one program ---- */

typedef struct {
    uint64_t what, amount;
} launched;

typedef struct {
    launched keys[DOZEN];
    int pushed_out; /* times that a key was gone though launches of it were left */
} program;

static hami_cost cost;

static bool paid_by_the_lane(hami_lane *lane, const launched *key)
{
    if (hami_lane_pays(key->what, key->amount))
        return true;
    hami_lane_drop(lane, key->what, key->amount);
    hami_lane_fill(lane, key->what, key->amount, &cost, 1, HAMI_LANE_RUN);
    return false;
}

static void *launch_in_turn(void *which)
{
    program *p = which;
    hami_lane *lane = hami_lane_take(&hami_state.cards[0]);
    CHECK(lane != NULL);
    hami_mine.credit_ns = (int64_t)DOZEN * TURNS;
    int looked_up = 0;
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < DOZEN; i++)
            looked_up += !paid_by_the_lane(lane, &p->keys[i]);
    CHECK(looked_up >= ROUNDS * DOZEN);
    p->pushed_out = looked_up - ROUNDS * DOZEN;
    return NULL;
}

/* ---- how keys lie ---- */

static uint64_t dice(void)
{
    static uint64_t state = 88172645463325252u; /* the same each run */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint64_t heap(void)
{
    return 0x550000000000u + (dice() % (1u << 30)) * 16;
}

/* Functions of modules that were loaded one by one, with other things between. */
static void apart(launched *keys)
{
    uint64_t at = heap();
    for (int i = 0; i < DOZEN; i++)
        keys[i] = (launched){.what = at += 16 + dice() % 1250 * 16, .amount = 1ull << 63 | 32};
}

/* Functions in a row, as of one module, all of one size. */
static void in_a_row(launched *keys)
{
    const uint64_t at = heap(), size = 16 + dice() % 512 * 16;
    for (int i = 0; i < DOZEN; i++)
        keys[i] = (launched){.what = at + (uint64_t)i * size, .amount = 1ull << 63 | 32};
}

/* One function, launched on a dozen grids. */
static void of_many_grids(launched *keys)
{
    const uint64_t at = heap();
    for (int i = 0; i < DOZEN; i++)
        keys[i] = (launched){.what = at, .amount = 1ull << 63 | ((1 + dice() % 100000) * 31 + 32 * (1 + dice() % 32))};
}

static bool all_different(const launched *keys)
{
    for (int i = 0; i < DOZEN; i++)
        for (int j = 0; j < i; j++)
            if (keys[i].what == keys[j].what && keys[i].amount == keys[j].amount)
                return false;
    return true;
}

static double percent_pushed_out(void (*lie)(launched *))
{
    int programs = 0;
    for (int i = 0; i < PROGRAMS; i++) {
        program p = {.pushed_out = -1};
        pthread_t thread;
        do {
            lie(p.keys);
        } while (!all_different(p.keys));
        CHECK(pthread_create(&thread, NULL, launch_in_turn, &p) == 0 && pthread_join(thread, NULL) == 0);
        programs += p.pushed_out > 0;
    }
    return 100.0 * programs / (double)PROGRAMS;
}

int main(void)
{
    hami_state.card_count = 1;
    hami_lanes_open(true);
    printf("{\"apart\": %.2f, \"in_a_row\": %.2f, \"of_many_grids\": %.2f}\n", percent_pushed_out(apart), percent_pushed_out(in_a_row),
           percent_pushed_out(of_many_grids));
    return 0;
}
