/* See lane.h. Hooks of what changes a thread's context. */
#include "pay/lane.h"

#include <pthread.h>
#include <string.h>

#include "price/cost.h"
#include "process/log.h"

enum {
    LANES = 512, /* threads that launch at once, times cards; more of them pay without a lane */
    ENDS = 2     /* times that a thread's end is heard of for certain: what a program's own destructors launch after that has no lane */
};

static_assert(HAMI_LANE_SETS == 128, "the index is the top seven bits of the hash");
static_assert(sizeof(hami_lane_set) == 64, "a set is one line");

__thread hami_mine_t hami_mine;

static __thread int ends __attribute__((tls_model("initial-exec"))); /* times that this thread's was heard of */
static hami_lane lanes[LANES];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t own; /* the first of a thread's lanes */
static _Atomic bool usable; /* `own` is made */
static _Atomic bool unseen; /* a thread's context has changed past our hooks */
static _Atomic uint32_t contexts_gone;

static void drop(hami_lane_key *key)
{
    if (key->cost != NULL)
        hami_cost_return(key->cost, key->price_ns, key->left);
    memset(key, 0, sizeof *key);
}

/* Puts the thread's credit down beside its lane. */
static void leave(void)
{
    if (hami_mine.lane != NULL)
        hami_mine.lane->kept_ns = hami_mine.credit_ns;
    hami_mine = (hami_mine_t){0};
}

/* At the end of a thread: what it has not used is the process's again. */
static void give_back(void *first)
{
    leave();
    ends++;
    for (hami_lane *lane = first, *next; lane != NULL; lane = next) {
        next = lane->other;
        for (int i = 0; i < HAMI_LANE_SETS * HAMI_LANE_WAYS; i++)
            drop(&lane->sets[i / HAMI_LANE_WAYS].keys[i % HAMI_LANE_WAYS]);
        hami_budget_correct(&lane->card->purse, -lane->kept_ns);
        lane->kept_ns = 0;
        atomic_store(&lane->taken, false);
    }
}

static void begin(void)
{
    atomic_store(&usable, pthread_key_create(&own, give_back) == 0);
}

void hami_lanes_open(bool open)
{
    atomic_store(&hami_hot.mine, (char *)&hami_mine - (char *)__builtin_thread_pointer()); /* the same in every thread */
    atomic_store(&hami_hot.lanes_open, open && !atomic_load(&unseen));
}

static hami_lane *make(hami_card *card, hami_lane *first)
{
    for (int i = 0; i < LANES; i++) {
        hami_lane *lane = &lanes[i];
        if (atomic_load_explicit(&lane->taken, memory_order_relaxed) || atomic_exchange(&lane->taken, true))
            continue;
        lane->card = card;
        lane->other = first;
        if (pthread_setspecific(own, lane) == 0)
            return lane;
        atomic_store(&lane->taken, false);
        break;
    }
    return NULL;
}

static void enter(hami_lane *lane)
{
    hami_mine = (hami_mine_t){.lane = lane, .credit_ns = lane->kept_ns};
}

/* Of several cards the launches go to that of the context, which only our hooks follow. */
static void note_context(hami_lane *lane)
{
    lane->as_of = atomic_load(&contexts_gone);
    if (hami_state.card_count == 1 || USE(cuCtxGetCurrent, &lane->context) != CUDA_SUCCESS)
        lane->context = NULL;
}

hami_lane *hami_lane_take(hami_card *card)
{
    if (!atomic_load_explicit(&hami_hot.lanes_open, memory_order_relaxed))
        return NULL;
    if (hami_mine.lane != NULL && hami_mine.lane->card == card)
        return hami_mine.lane;
    if (ends >= ENDS || pthread_once(&once, begin) != 0 || !usable)
        return NULL;
    if (hami_mine.lane != NULL) {
        hami_log(HAMI_LOG_WARN, "a thread's context has changed unseen: launches on several cards are paid for one by one");
        atomic_store(&unseen, true);
        atomic_store(&hami_hot.lanes_open, false);
        return NULL;
    }
    hami_lane *first = pthread_getspecific(own), *lane = first;
    while (lane != NULL && lane->card != card)
        lane = lane->other;
    if (lane == NULL && (lane = make(card, first)) == NULL)
        return NULL;
    note_context(lane);
    enter(lane);
    return lane;
}

void hami_lane_drop(hami_lane *lane, uint64_t what, uint64_t amount)
{
    hami_lane_key *key = hami_lane_find(lane, what, amount);
    if (key->what == what && key->amount == amount)
        drop(key);
}

void hami_lane_fill(hami_lane *lane, uint64_t what, uint64_t amount, struct hami_cost *cost, int64_t price_ns, uint32_t left)
{
    hami_lane_set *set = hami_lane_set_of(lane, what, amount);
    hami_lane_key *key = set->keys;
    for (int i = 1; i < HAMI_LANE_WAYS; i++)
        key = set->keys[i].left < key->left ? &set->keys[i] : key;
    drop(key);
    *key = (hami_lane_key){.what = what, .amount = amount, .price_ns = (int32_t)price_ns, .cost = cost, .left = left};
}

/* ---- which card a thread launches on ---- */

void hami_lane_follow(CUcontext context)
{
    if (hami_state.card_count <= 1)
        return;
    const uint32_t gone = atomic_load_explicit(&contexts_gone, memory_order_relaxed);
    if (hami_mine.lane != NULL && hami_mine.lane->context == context && hami_mine.lane->as_of == gone)
        return;
    leave();
    if (context == NULL || !usable)
        return;
    for (hami_lane *lane = pthread_getspecific(own); lane != NULL; lane = lane->other) {
        if (lane->context == context && lane->as_of == gone) {
            enter(lane);
            return;
        }
    }
}

void hami_lane_context_gone(void)
{
    atomic_fetch_add(&contexts_gone, 1);
    hami_lane_follow(NULL);
}

static CUresult followed(CUresult result, CUcontext context)
{
    hami_lane_follow(result == CUDA_SUCCESS ? context : NULL);
    return result;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    return followed(BEHIND(cuCtxSetCurrent, context), context);
}

CUresult cuCtxPushCurrent(CUcontext context)
{
    return followed(BEHIND(cuCtxPushCurrent, context), context);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    return followed(BEHIND(cuCtxPushCurrent_v2, context), context);
}

/* What was below is known to the driver alone: the next launch asks it. */
CUresult cuCtxPopCurrent(CUcontext *out)
{
    return followed(BEHIND(cuCtxPopCurrent, out), NULL);
}

CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    return followed(BEHIND(cuCtxPopCurrent_v2, out), NULL);
}
