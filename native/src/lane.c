/* See lane.h. */
#include "lane.h"

#include <pthread.h>
#include <string.h>

#include "cost.h"
#include "state.h"

enum { LANES = 256 }; /* threads that launch at once; more of them pay without a lane */

static_assert(HAMI_LANE_KEYS == 64, "the index is the top six bits of the hash");

__thread hami_mine_t hami_mine;

static hami_lane lanes[LANES];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t ending;
static bool usable;

static void drop(hami_lane_key *key)
{
    if (key->cost != NULL)
        hami_cost_return(key->cost, key->price_ns, key->left);
    memset(key, 0, sizeof *key);
}

/* At the end of a thread: what it has not used is the process's again. */
static void leave(void *mine)
{
    hami_lane *lane = mine;
    for (int i = 0; i < HAMI_LANE_KEYS; i++)
        drop(&lane->keys[i]);
    if (hami_state.card_count == 1)
        hami_budget_correct(&hami_state.cards[0].purse, -hami_mine.credit_ns);
    hami_mine = (hami_mine_t){0};
    atomic_store(&lane->taken, false);
}

static void begin(void)
{
    usable = pthread_key_create(&ending, leave) == 0;
}

void hami_lanes_open(bool open)
{
    atomic_store(&hami_hot.mine, (char *)&hami_mine - (char *)__builtin_thread_pointer()); /* the same in every thread */
    atomic_store(&hami_hot.lanes_open, open);
}

hami_lane *hami_lane_take(void)
{
    if (!atomic_load_explicit(&hami_hot.lanes_open, memory_order_relaxed))
        return NULL;
    if (hami_mine.lane != NULL || pthread_once(&once, begin) != 0 || !usable)
        return hami_mine.lane;
    for (int i = 0; i < LANES; i++) {
        if (!atomic_load_explicit(&lanes[i].taken, memory_order_relaxed) && !atomic_exchange(&lanes[i].taken, true)) {
            if (pthread_setspecific(ending, &lanes[i]) == 0)
                hami_mine.lane = &lanes[i];
            else
                atomic_store(&lanes[i].taken, false);
            break;
        }
    }
    return hami_mine.lane;
}

void hami_lane_drop(hami_lane *lane, uint64_t what, uint64_t amount)
{
    drop(hami_lane_key_of(lane, what, amount));
}

void hami_lane_fill(hami_lane *lane, uint64_t what, uint64_t amount, struct hami_cost *cost, int64_t price_ns, uint32_t left)
{
    hami_lane_key *key = hami_lane_key_of(lane, what, amount);
    *key = (hami_lane_key){.what = what, .amount = amount, .price_ns = price_ns, .cost = cost, .left = left};
}
