/*
 * When a process may launch: its budget, and turns on the card where several tenants have full queues.
 *
 * Native time slicing costs 7 % of the card and puts neighbours' slices into each other's measurements. So tenants whose queues are full run one
 * after the other, 20 ms of work each, the queue drained before the turn is handed on, the next chosen by time had over weight. Tenants
 * bound by their hosts take no turns: they overlap. Whether a tenant is, is seen in its turns: who cannot fill them takes none for a while.
 * A turn is measured in work queued, and is over as soon as that has run dry.
 * Who may use idle time shares the card with those that have wanted any in the last 5 ms, by what of it is each one's own (hami_page_part): all but a
 * hundredth of it while nobody else has, and never less than its percent.
 *
 * Pure: the clock is passed in, and waiting is the caller's. The rules about others' numbers are in hami/turns.h.
 */
#ifndef HAMI_SRC_TURNS_H
#define HAMI_SRC_TURNS_H

#include <stdbool.h>

#include "hami/turns.h"
#include "pay/budget.h"
#include "pay/page.h"

enum {
    HAMI_PATIENCE_NS = 300 * 1000,         /* a holder whose queue has run dry for so long has lost its turn */
    HAMI_CLAIM_NS = 1000 * 1000,           /* who is handed the turn has so long to begin */
    HAMI_POLL_NS = 2 * 1000 * 1000,        /* who waits asks again at least so often */
    HAMI_FULL_NS = 300 * 1000,             /* work queued ahead of the card that makes a queue full */
    HAMI_NEVER_DRY_NS = 40 * 1000 * 1000,  /* so does a queue that is hardly ever empty for so long: many slices of others */
    HAMI_WAITED_NS = 20 * 1000,            /* who waits for so long found work of his on the card */
    HAMI_BRIEF_NS = 300 * 1000,            /* waits for the budget that a turn is kept over, one and all together */
    HAMI_TURN_BURST_NS = 100 * 1000 * 1000, /* wall time that may be caught up where turns are waited for */
    HAMI_DRY_PERCENT = 12, /* of its turns that a tenant's host may leave the card idle: to overlap costs 7 to 9 */
    HAMI_JUDGED_NS = 40 * 1000 * 1000, /* queued in its turns and left idle in them, together, before that is said of it */
    HAMI_PAUSE_NS = 100 * 1000,        /* shorter pauses are not looked for */
    HAMI_LAPSE_NS = 4 * 1000 * 1000 /* one absence counts for no more (a program that loads, a host slow to wake): never too much by itself */
};

/* What has been so far, for people who look into it. */
typedef struct {
    uint32_t turns, drains, lost, defiances; /* `lost`: turns that another took from us, having found our queue dry */
    uint32_t bound;                          /* how often our host was found not to fill our turns */
    uint32_t waits;                          /* of our host for the card */
    int64_t waited_ns, drained_ns;           /* for our turn; for the end of it */
} hami_turns_had;

/* One process on one card; the caller sees to it that one thread at a time is in here. */
typedef struct {
    hami_turns_page *page; /* NULL: no broker, no turns */
    int member, tenant;
    int weight; /* percent of the card */
    uint64_t word;         /* `holder` as it was when our turn began; 0: it is not our turn */
    int64_t left_ns;       /* GPU time left in our turn */
    int64_t queue_end_ns;  /* when all that was bought is through, as reckoned from prices */
    int64_t spare_ns;      /* what of it is not launched; the caller says so before it asks */
    int64_t debt_ns;       /* what of `need_ns` pays for the past, and is not going to be queued; likewise */
    bool dry, busy;        /* nothing of ours is left on the card, or something is; neither: not looked at (hami_turn_looks); likewise */
    int64_t blocked_ns, blocked_until_ns; /* after `queue_end_ns`, while threads of ours waited for the card: it was at work for us; when the last came back */
    int64_t full_since_ns, gaps_ns;       /* since then our queue has been empty for so long, in moments between launches */
    bool beside;           /* our turn was not handed to us, and nobody has waited for the card in it yet: others' work may be on it */
    bool learns;           /* prices are being learned: others' slices would be in them; likewise */
    int64_t bought_ns;     /* by the last that went on */
    bool borrows;          /* may use what the others leave idle: the percent holds only beside them */
    int64_t waiting_ns;    /* since when we want our turn; 0: we do not */
    int64_t asked_ns;      /* when we asked for it last */
    int64_t brief_ns;      /* what of our turn went by while the budget was waited for */
    int64_t defiant_ns;    /* until when we take no turns, having waited too long */
    int defied;            /* how often that has been so in a row */
    int64_t busy_ns, dry_ns; /* of our turns of late: what was queued in them, and for how long nothing was though our host could have */
    bool unseen;             /* our host may have paused unseen: something is on the card, though by reckoning all was through */
    bool closely;            /* each launch is bought by itself, so that no pause is missed */
    int64_t closely_ns;      /* when that was begun last */
    bool excused;            /* the next that is queued could not have been before */
    int64_t bound_ns;        /* until when we take no turns, since our host does not fill them */
    int times_bound;         /* in a row */
    bool handed;           /* a turn was handed on: wake those who wait */
    hami_turns_had had;
} hami_pacer;

typedef enum {
    HAMI_GO,    /* bought: launch */
    HAMI_WAIT,  /* ask again at *until_ns, or when `handed` changes */
    HAMI_DRAIN, /* wait until what was launched is through (reckoned at *until_ns), call hami_turn_over, ask again */
} hami_step;

/* What a launch of `need_ns` does next. GO has moved `paid_until_ns` and the purse, as hami_budget_buy does. */
hami_step hami_pace(hami_pacer *pacer, _Atomic int64_t *paid_until_ns, hami_purse *purse, int64_t need_ns, int percent,
                    int64_t now_ns, int64_t *until_ns);

/*
 * Leaves word that the tenant uses the card for `span_ns` from now. hami_pace does it; this is for those whose launches are not paid for,
 * and so are not seen.
 */
void hami_turn_used(hami_pacer *pacer, int64_t span_ns, int64_t now_ns);

/* While draining, at least every 200 us: the queue is not through yet, though it was reckoned to be. */
void hami_turn_draining(hami_pacer *pacer, int64_t now_ns);

/* The queue is drained, or the process leaves: hand the turn on. */
void hami_turn_over(hami_pacer *pacer, int64_t now_ns);

/*
 * A thread begins to wait for the card, and has come back. Outside of its turn, and at the beginning of it, what it waited for was on the card all that
 * time, however long it was reckoned to take.
 */
void hami_turn_waits(hami_pacer *pacer, int64_t now_ns);
void hami_turn_waited(hami_pacer *pacer, int64_t since_ns, int64_t now_ns);

/* True where it is worth a look whether what was queued is through: it should be, and in our turn or beside others it matters. */
bool hami_turn_looks(const hami_pacer *pacer, int64_t now_ns);

/*
 * True: another tenant has bought time on the card a moment ago. Those that pay for nothing leave word ahead of time, whether they use the card or not:
 * they are not meant.
 */
bool hami_turn_others_buy(const hami_pacer *pacer, int64_t now_ns);

/* True while it is our turn, and so nobody else's slices are in what we measure. */
bool hami_turn_ours(const hami_pacer *pacer);

#endif
