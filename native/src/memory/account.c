/* Taking and giving back memory of the slice, and setting the ledger right by what NVML shows. See state.h. */
#include "memory/claims.h"
#include "process/log.h"
#include "process/nvml.h"
#include "prim/prim.h"
#include "process/state.h"

#define MIB ((int64_t)1 << 20)

enum { RECONCILE_EVERY_NS = 100 * 1000 * 1000 }; /* at most, on the way of an allocation: 0.3 ms each */
enum { ASKS_S = 10 };                              /* a call of the driver is reckoned with for so long after nothing else moves */
enum { LOOKS = 2 };                              /* once more where memory was taken or given back meanwhile */
enum { SLACK_BYTES = 64 << 20 };                 /* what an estimate may be off by before something is undone for it */

int64_t hami_linear_bytes(size_t bytes)
{
    if (bytes > (size_t)1 << 60)
        return INT64_MAX; /* no card has it; keeps the rounding from wrapping */
    const int64_t unit = bytes <= (size_t)MIB ? 512 : 2 * MIB;
    return ((int64_t)bytes + unit - 1) / unit * unit;
}

#define CHANGE (HAMI_ASKING + 1)

static void changed(hami_card *card)
{
    atomic_fetch_add_explicit(&card->calls, CHANGE, memory_order_relaxed);
}

void hami_asks(hami_card *card)
{
    atomic_fetch_add(&card->calls, CHANGE + 1);
}

void hami_asked(hami_card *card)
{
    atomic_fetch_sub(&card->calls, 1);
}

/*
 * Some call is with the driver. A thread may end in there, or a handler jump out of it: where nothing has moved for long that is not waited for any more. Timed
 * by those who look, who are few, and not by the calls.
 */
static bool asks(hami_card *card, uint64_t calls)
{
    if ((calls & HAMI_ASKING) == 0)
        return false;
    const int64_t now = hami_now_ns();
    if (atomic_exchange(&card->calls_seen, calls) != calls)
        atomic_store(&card->calls_seen_ns, now);
    return now - atomic_load(&card->calls_seen_ns) < ASKS_S * 1000000000ll;
}

static bool reserve(hami_card *card, hami_kind kind, int64_t bytes)
{
    hami_asks(card);
    if (hami_ledger_reserve(hami_state.ledger, hami_state.slot, card->ledger_index, kind, bytes, atomic_load(&card->limit)))
        return true;
    hami_asked(card);
    return false;
}

static bool stale(hami_card *card)
{
    return hami_now_ns() - atomic_load(&card->reconciled_ns) > RECONCILE_EVERY_NS;
}

bool hami_take(hami_card *card, hami_kind kind, int64_t bytes)
{
    const int64_t limit = atomic_load(&card->limit);
    if (limit != HAMI_UNLIMITED) {
        /* Near the limit the part that only NVML shows decides. */
        const bool near = bytes > limit - limit / 4 - hami_ledger_held(hami_state.ledger, card->ledger_index);
        if (atomic_load_explicit(&card->reconcile_due, memory_order_relaxed) || (near && stale(card)))
            hami_reconcile(card);
    }
    if (reserve(card, kind, bytes))
        return true;
    hami_pools_refresh(true); /* as the driver does when the card is full */
    if (stale(card))
        hami_reconcile(card);
    if (reserve(card, kind, bytes))
        return true;
    hami_log(HAMI_LOG_WARN, "%lld bytes refused: %lld of %lld in use", (long long)bytes,
             (long long)hami_ledger_held(hami_state.ledger, card->ledger_index), (long long)limit);
    return false;
}

void hami_give(hami_card *card, hami_kind kind, int64_t bytes)
{
    changed(card);
    hami_ledger_release(hami_state.ledger, hami_state.slot, card->ledger_index, kind, bytes);
}

void hami_move(hami_card *card, hami_kind kind, int64_t charged, int64_t now)
{
    if (now == charged)
        return;
    changed(card);
    hami_ledger_add(hami_state.ledger, hami_state.slot, card->ledger_index, kind, now - charged);
}

bool hami_overdrawn(hami_card *card)
{
    const int64_t limit = atomic_load(&card->limit);
    if (limit == HAMI_UNLIMITED || hami_ledger_held(hami_state.ledger, card->ledger_index) <= limit + SLACK_BYTES)
        return false;
    hami_ledger_reap(hami_state.ledger); /* some of it may be of the dead */
    return hami_ledger_held(hami_state.ledger, card->ledger_index) > limit + SLACK_BYTES;
}

bool hami_full_for_others(hami_card *card)
{
    if (card == NULL || atomic_load(&card->limit) == HAMI_UNLIMITED)
        return false;
    hami_reconcile(card);
    return hami_overdrawn(card);
}

bool hami_claim(hami_card *card, int64_t patience_ns)
{
    return atomic_load(&card->limit) != HAMI_UNLIMITED &&
           hami_ledger_claim(hami_state.ledger, hami_state.slot, card->ledger_index, patience_ns);
}

void hami_unclaim(hami_card *card, bool *claimed)
{
    if (*claimed)
        hami_ledger_unclaim(hami_state.ledger, hami_state.slot, card->ledger_index);
    *claimed = false;
}

/* What the ledger has of this process, read before NVML's answer and after it. */
typedef struct {
    hami_nvml_view view;
    int64_t before, after; /* bytes */
    bool read, quiet;      /* quiet: nothing was taken or given back meanwhile, nor was about to be, nor had been by the driver alone */
} look;

static int64_t own(hami_card *card)
{
    return hami_ledger_own(hami_state.ledger, hami_state.slot, card->ledger_index);
}

/*
 * The driver gives back without a call of ours (pools at a wait, what a stream was to free): what the ledger still has of that is looked for after NVML's answer,
 * which is without it, and so nothing is quiet.
 */
static look look_at(hami_card *card)
{
    const uint64_t calls = atomic_load(&card->calls);
    const bool asking = asks(card, calls);
    look l = {.before = own(card)};
    l.read = hami_nvml_read(atomic_load(&card->nvml), &l.view);
    l.after = own(card);
    if (l.read)
        hami_pools_refresh(false);
    l.quiet = !asking && atomic_load(&card->calls) == calls;
    return l;
}

/*
 * Only what exceeds both readings is unexplained: an allocation or a free of another thread may have come between. But where
 * one has, that is too little by as much as was taken meanwhile, so it takes nothing off what was unexplained before.
 */
static void settle(hami_card *card, const look *l)
{
    const int64_t known = l->before > l->after ? l->before : l->after;
    const int64_t found = l->view.own_bytes > known ? l->view.own_bytes - known : 0;
    const int64_t so_far = hami_state.ledger->slots[hami_state.slot].cards[card->ledger_index].held[HAMI_UNATTRIBUTED];
    if (l->quiet || found > so_far)
        hami_ledger_settle(hami_state.ledger, hami_state.slot, card->ledger_index, HAMI_UNATTRIBUTED, found);
}

bool hami_reconcile(hami_card *card)
{
    atomic_store(&card->reconcile_due, false);
    /* Late: starting NVML takes milliseconds, and seconds where 64 processes do it at once. */
    if (!atomic_exchange(&card->nvml_asked, true)) {
        const nvmlDevice_t found = hami_nvml_card(card->uuid);
        atomic_store(&card->nvml, found);
        atomic_store(&card->nvml_missing, found == NULL);
    }
    look l = look_at(card);
    for (int again = 0; again < LOOKS && l.read && !l.quiet; again++)
        l = look_at(card);
    atomic_store(&card->reconciled_ns, hami_now_ns());
    const int told = atomic_load(&card->told_others), others = told >= 0 ? told : (int)l.view.others;
    if (l.read || told >= 0) {
        atomic_store(&card->alone, others == 0);
        atomic_store(&card->processes, others + hami_ledger_processes(hami_state.ledger, card->ledger_index));
    }
    if (l.read)
        atomic_store(&card->nvml_shows_us, l.view.own_bytes >= 0);
    if (!l.read || l.view.own_bytes < 0)
        return false;
    settle(card, &l);
    return true;
}

hami_slice hami_slice_of(hami_card *card)
{
    const int64_t held = hami_ledger_held(hami_state.ledger, card->ledger_index), limit = atomic_load(&card->limit);
    return (hami_slice){.limit = limit, .used = held < 0 ? 0 : held < limit ? held : limit};
}
