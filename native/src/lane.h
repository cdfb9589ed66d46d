/*
 * What a thread keeps to itself, so that a launch that need not wait touches nothing that others write.
 *
 * The prices of the keys it launched last, launches of them that are counted already, and a little GPU time taken out of
 * the purse. A launch that finds all three goes on at once; any other goes through pay.c, which fills them up again.
 */
#ifndef HAMI_LANE_H
#define HAMI_LANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "capture.h"

enum {
    HAMI_LANE_KEYS = 64,        /* a power of two */
    HAMI_LANE_RUN = 64,         /* launches of a key counted ahead */
    HAMI_LANE_NS = 50 * 1000    /* GPU time taken out of the purse at once */
};

typedef struct {
    uint64_t what, amount; /* as in hami_work; both 0: empty */
    int64_t price_ns;
    struct hami_cost *cost;
    uint32_t left; /* launches that are counted and not made */
} hami_lane_key;

typedef struct {
    int64_t credit_ns;
    _Atomic bool taken;
    hami_lane_key keys[HAMI_LANE_KEYS];
} hami_lane;

/* A load from the thread's own block: the library is there from the start of the process, so no call is needed. */
extern __thread hami_lane *hami_lane_mine __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern _Atomic bool hami_lanes_open; /* one card, one priority: nothing has to be asked before a launch */
extern _Atomic bool hami_measuring;  /* a short kernel is being measured: nothing of this process runs beside it */

static inline hami_lane_key *hami_lane_key_of(hami_lane *lane, uint64_t what, uint64_t amount)
{
    return &lane->keys[(what * 0x9e3779b97f4a7c15u + amount * 0xc2b2ae3d27d4eb4fu) >> 58];
}

/* True: paid for, and not to be measured. */
static inline bool hami_lane_pays(uint64_t what, uint64_t amount)
{
    hami_lane *lane = hami_lane_mine;
    if (lane == NULL || hami_capturing() || !atomic_load_explicit(&hami_lanes_open, memory_order_relaxed) ||
        atomic_load_explicit(&hami_measuring, memory_order_relaxed))
        return false;
    hami_lane_key *key = hami_lane_key_of(lane, what, amount);
    if (key->what != what || key->amount != amount || key->left == 0 || lane->credit_ns < key->price_ns)
        return false;
    key->left--;
    lane->credit_ns -= key->price_ns;
    return true;
}

/* This thread's lane, made at its first use; NULL: none left, or lanes are not open. */
hami_lane *hami_lane_take(void);

/* Writes down that `left` launches of the key are counted, at that price. */
void hami_lane_fill(hami_lane *lane, uint64_t what, uint64_t amount, struct hami_cost *cost, int64_t price_ns, uint32_t left);

#endif
