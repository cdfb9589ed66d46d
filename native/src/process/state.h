/*
 * This process: its policy, its ledger slot, its cards. Made by the first cuInit, dropped in a forked child.
 */
#ifndef HAMI_STATE_H
#define HAMI_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pay/budget.h"
#include "process/driver.h"
#include "memory/ledger.h"
#include "limits/policy.h"
#include "pay/turns.h"

typedef enum {
    HAMI_FENCE_TURN,  /* of what is launched in a turn (buy.c) */
    HAMI_FENCE_LEASH, /* of what low priority launches (yield.c) */
    HAMI_FENCE_LEASH_TOO,
    HAMI_FENCES
} hami_fence_kind;

enum { HAMI_CROWDED_NS = 1000 * 1000 * 1000 }; /* a launch from another stream makes the process crowded for so long */

typedef struct {
    CUdevice device;
    char uuid[96];
    int ledger_index;
    _Atomic int64_t limit;           /* bytes; may change at run time through the broker */
    _Atomic int percent;             /* 1 to 100 */
    _Atomic bool alone;              /* no process of others was seen on the card at the last look */
    _Atomic int64_t unsure_until_ns; /* before that nobody has looked, so `alone` is not believed; 0: there is no broker who looks */
    _Atomic int processes;           /* that may run on the card, ours included, as of the last look; 0: unknown */
    _Atomic int64_t reconciled_ns;   /* last NVML reading */
    _Atomic bool reconcile_due;      /* something changed that only NVML shows */
    _Atomic uint64_t calls;          /* that take or free memory: how many are with the driver now (HAMI_ASKING), and above it how often one took or gave */
    _Atomic uint64_t calls_seen;     /* by who looked last, and since when it has been so */
    _Atomic int64_t calls_seen_ns;
    _Atomic int64_t event_offset_ns; /* what a gated pair of events adds; 0: not calibrated, below 0: cannot be */
    _Atomic(CUcontext) primary;      /* the primary context while it is active */
    hami_purse purse;
    pthread_mutex_t pacing; /* guards `pacer` */
    hami_pacer pacer;
    _Atomic int64_t learning_ns;     /* when a launch was last made whose price is hardly known; 0: none was */
    _Atomic uintptr_t last_stream;   /* of a launch that went through pay.c, plus 1; 0: none has */
    _Atomic int64_t crowded_ns;      /* when launches were last seen to come from another stream than those before */
    _Atomic int64_t drain_until_ns;  /* a thread waits for the end of our turn (lease.h) */
    _Atomic int64_t looked_out_ns;   /* the wish for a turn (`waiting_ns`) that was looked out for without sleep */
    _Atomic bool low;                /* priority 1 */
    _Atomic bool mixed;              /* tenants of the other priority use the card */
    _Atomic int64_t yielded_ns;      /* since when launches yield to a higher priority; 0: they do not */
    _Atomic int64_t pause_ns;        /* for so long at most; 0: nothing was launched beside it yet */
    _Atomic int64_t excused_ns;      /* until when they need not */
    _Atomic int64_t excused_since_ns; /* 0: what that took on the card is known */
    _Atomic uint32_t group, grouped; /* launches of a group beside a higher priority that rests, and made of the present one */
    int64_t group_ns;                /* when the last group went; this and the next under a lease of yield.c */
    hami_fence_kind fence;           /* at its end */
    _Atomic int told_others;         /* by the broker: processes of others on the card; -1: it has not said */
    _Atomic int64_t told_bytes;      /* by the broker: what NVML shows of this process; -1: nothing */
    _Atomic bool nvml_shows_us;      /* our own look at NVML found this process */
    _Atomic int64_t busy_ns;         /* GPU time charged to this process */
    _Atomic int64_t waited_ns;       /* time its launches have waited */
    _Atomic int64_t launched_ns;     /* CLOCK_MONOTONIC of its last paid launch, refreshed with each purchase; 0: none */
    _Atomic(nvmlDevice_t) nvml; /* NULL: not asked for yet, or unknown to NVML */
    _Atomic bool nvml_asked;
    _Atomic bool nvml_missing; /* there is none, or none that knows the card */
} hami_card;

#define HAMI_ASKING (((uint64_t)1 << 20) - 1)

typedef struct {
    hami_policy policy;
    hami_ledger *ledger;
    int slot;
    _Atomic int core_policy; /* hami_core_policy; may change at run time */
    _Atomic int host_pid;    /* as the broker told, 0: unknown */
    int card_count;
    hami_card cards[HAMI_MAX_CARDS];
} hami_state_t;

extern hami_state_t hami_state;
extern _Atomic bool hami_active;    /* limits are in force in this process */
extern _Atomic bool hami_shut;      /* the driver may have started and limits are not in force: whoever goes on all the same gets no context */
extern _Atomic int hami_throttling; /* number of cards on which launches are to be paid for now; 0: launches go straight on */

/* The card of the current context, NULL when the library is not active or there is no context. */
hami_card *hami_card_now(void);

/* The card of a device ordinal, NULL when unknown. */
hami_card *hami_card_of(CUdevice device);

/* Works out again which cards are throttled, after a change of policy, limit or neighbours. */
void hami_throttle_update(void);

/* Launches on it are paid for now: there is a limit of time, and somebody else on the card or a policy that asks nobody. */
bool hami_card_pays(hami_card *card);

/* True: it is taken for ours alone, and by its limit and policy that is why nothing is paid for. */
bool hami_card_lone(hami_card *card);

/* Somebody uses it, whom the last look may not have seen: until the next ones are through it is not taken for ours alone. */
void hami_card_not_alone(hami_card *card);

/* The page on which a card's tenants take turns, and our place on it; NULL: none. */
void hami_card_pages(hami_card *card, hami_turns_page *page, int member, int tenant, int weight);

/* ---- memory, used by the hooks ---- */

/* Reserves; on refusal looks again at what pools and NVML really hold before giving up. False: over the limit. */
bool hami_take(hami_card *card, hami_kind kind, int64_t bytes); /* true: hami_asked is due */
void hami_give(hami_card *card, hami_kind kind, int64_t bytes);

/*
 * From hami_take on, or hami_asks where memory is about to be freed, until hami_asked, when the driver has answered and the ledger says so: so long the
 * ledger has what NVML does not show. What only NVML shows would seem to be less by it, and is not settled lower meanwhile.
 */
void hami_asks(hami_card *card);
void hami_asked(hami_card *card);

/* Moves the charge of a kind from `charged` to `now`, bytes, whatever the limit: it is what the driver holds. */
void hami_move(hami_card *card, hami_kind kind, int64_t charged, int64_t now);

/* More is held than the limit allows: by so much that an estimate does not explain it. */
bool hami_overdrawn(hami_card *card);

/* The same of this moment, of what nobody of this container makes or pays: whoever has too much already is handed nothing more. */
bool hami_full_for_others(hami_card *card);

/* One at a time, of this container, takes of a card what only shows afterwards. False: another took longer than that. */
bool hami_claim(hami_card *card, int64_t patience_ns);
void hami_unclaim(hami_card *card, bool *claimed);

/* Reads NVML and settles HAMI_UNATTRIBUTED. False when NVML does not show this process. */
bool hami_reconcile(hami_card *card);

/* Reads again what this process's pools and graph memory hold, and settles them; `trim`: gives back what they do not use. */
void hami_pools_refresh(bool trim);

/* Something begins to be captured: afterwards no pool that was destroyed is being looked after. */
void hami_pools_pause(void);

/* What the driver takes for a linear allocation of that many bytes. */
int64_t hami_linear_bytes(size_t bytes);

/* For queries: the limit, and what all processes hold of it, bytes. Of one moment, since a limit may change: what is used is never more. */
typedef struct {
    int64_t limit, used;
} hami_slice;
hami_slice hami_slice_of(hami_card *card);

/*
 * A context is about to go, and its buffers, arrays and modules with it. Its handle may be another's as soon as the driver is through, so
 * meanwhile what it holds has another name, which this returns. Then they have gone, or all is as before.
 */
CUcontext hami_memory_leaves(CUcontext context);
void hami_memory_left(CUcontext context, CUcontext name, bool gone);
void hami_memory_rename(CUcontext from, CUcontext to);
void hami_modules_rename(CUcontext from, CUcontext to);
void hami_modules_gone(CUcontext context);

/* Runs or uploads a graph, its memory nodes charged. */
CUresult hami_graph_run(CUgraphExec exec, CUstream stream, CUresult (*run)(CUgraphExec, CUstream));

/* ---- compute ---- */

typedef struct {
    CUcontext context;
    int stay; /* of this thread, which is not cancelled meanwhile */
} hami_leave;

/*
 * A context may be about to go, NULL: none: nothing of it waits for a word of ours any longer, and nothing is measured in it until it has gone, with all
 * events in it, or is there as before. In others all goes on: to end one takes the driver long. One thread at a time for a context.
 */
hami_leave hami_context_leaves(CUcontext context);
void hami_context_left(const hami_leave *leave, bool gone);

/* ---- the watch threads ---- */

/* Starts them if they do not run in this process. 0, or a negated errno: without them nobody opens gates, nor hears of changed limits. */
int hami_watch_start(void);

/* A gate was closed: see that it does not stay so. */
void hami_watch_gate(void);

/*
 * True: who opens gates goes before this thread, wherever both have to run, by a real-time priority of its own where this thread has one. False: a gate
 * that this thread closes and then spins for may stay closed for ever.
 */
bool hami_watch_outranks(void);

#endif
