/*
 * What a thread keeps to itself, so that a launch that need not wait touches nothing that others write.
 *
 * The prices of the keys it launched last, launches of them that are counted already, and a little GPU time taken out of
 * the purse. A launch that finds all three goes on at once; any other goes through pay.c, which fills them up again.
 *
 * A lane is for one card. Where a container has several, a thread has one for each, and the hooks of what changes its context
 * put the right one into its place (lane.c), so a launch need not ask which card it is for.
 */
#ifndef HAMI_LANE_H
#define HAMI_LANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pay/capture.h"
#include "process/state.h"

enum {
    HAMI_LANE_SETS = 128,       /* a power of two */
    HAMI_LANE_WAYS = 2,         /* keys that fall together: in single places a dozen would push each other out in two programs of five (tests/lanes.c) */
    HAMI_LANE_RUN = 256,        /* launches of a key counted ahead */
    HAMI_LANE_NS = 1000 * 1000, /* GPU time taken out of the purse at once, at most */
    HAMI_LANE_CROWDED_NS = 50 * 1000 /* the same where launches come from several streams */
};

typedef struct {
    uint64_t what, amount; /* as in hami_work; both 0: empty */
    struct hami_cost *cost;
    int32_t price_ns;
    uint32_t left; /* launches that are counted and not made */
} hami_lane_key;

/* One line of the data cache. */
typedef struct {
    _Alignas(64) hami_lane_key keys[HAMI_LANE_WAYS];
} hami_lane_set;

typedef struct hami_lane {
    _Atomic bool taken;
    hami_card *card;
    CUcontext context;       /* in which its thread was when it came here; NULL: unknown */
    uint32_t as_of;          /* contexts that had ended by then: `context` may be another's since */
    int64_t kept_ns;         /* credit, while its thread launches on another card */
    struct hami_lane *other; /* of the same thread */
    hami_lane_set sets[HAMI_LANE_SETS];
} hami_lane;

/* A thread's own. */
typedef struct {
    _Alignas(16) hami_lane *lane; /* of the card that it launches on; NULL: none yet, or nobody knows which card that is */
    int64_t credit_ns;            /* taken out of the purse, not spent */
} hami_mine_t;

extern __thread hami_mine_t hami_mine __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline hami_lane_set *hami_lane_set_of(hami_lane *lane, uint64_t what, uint64_t amount)
{
    return &lane->sets[(what * 0x9e3779b97f4a7c15u + amount * 0xc2b2ae3d27d4eb4fu) >> 57];
}

/* The key where it is, else the last of its set. */
static inline hami_lane_key *hami_lane_find(hami_lane *lane, uint64_t what, uint64_t amount)
{
    hami_lane_key *key = hami_lane_set_of(lane, what, amount)->keys;
    for (int i = 1; i < HAMI_LANE_WAYS && (key->what != what || key->amount != amount); i++)
        key++;
    return key;
}

/* True: paid for, and not to be measured. The distance is in hami_hot: the linker's own copy of it would be one more line to fetch. */
static inline bool hami_lane_pays(uint64_t what, uint64_t amount)
{
    if (!atomic_load_explicit(&hami_hot.lanes_open, memory_order_acquire) || hami_capturing() ||
        atomic_load_explicit(&hami_hot.measuring, memory_order_relaxed))
        return false;
    const ptrdiff_t distance = atomic_load_explicit(&hami_hot.mine, memory_order_relaxed);
    hami_mine_t *mine = (hami_mine_t *)(void *)((char *)__builtin_thread_pointer() + distance);
    if (mine->lane == NULL)
        return false;
    hami_lane_key *key = hami_lane_find(mine->lane, what, amount);
    if (key->what != what || key->amount != amount || key->left == 0 || mine->credit_ns < key->price_ns)
        return false;
    key->left--;
    mine->credit_ns -= key->price_ns;
    return true;
}

/* Opens lanes to all threads, or closes them. */
void hami_lanes_open(bool open);

/* This thread's lane for the card of its context, made at its first use; NULL: none left, or lanes are not open. */
hami_lane *hami_lane_take(hami_card *card);

/* This thread has made `context` current, NULL: one that is not known. */
void hami_lane_follow(CUcontext context);

/* A context has ended: its handle may become another's. This thread's may be another now. */
void hami_lane_context_gone(void);

/* Returns the key's launches that are counted and not made. */
void hami_lane_drop(hami_lane *lane, uint64_t what, uint64_t amount);

/* Of a key that was dropped: writes down that `left` launches of it are counted, at that price, less than a ms. Another may have to go. */
void hami_lane_fill(hami_lane *lane, uint64_t what, uint64_t amount, struct hami_cost *cost, int64_t price_ns, uint32_t left);

#endif
