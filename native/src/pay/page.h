/*
 * The page on which tenants of a card tell each other who wants it and whose turn it is (hami/turns.h), and what of it is believed: anybody may have written
 * anything there, in a clock that nobody has. What follows from it for a process is in turns.c.
 */
#ifndef HAMI_PAGE_H
#define HAMI_PAGE_H

#include <stdbool.h>

#include "hami/turns.h"

enum {
    HAMI_TURN_NS = 20 * 1000 * 1000,       /* GPU time of one turn */
    HAMI_FRESH_NS = 6 * 1000 * 1000,       /* who has not asked for so long does not wait */
    HAMI_LINGER_NS = 50 * 1000 * 1000,     /* a queue seen full counts as full for so long */
    HAMI_ALL_PERCENT = 99, /* of a card that others leave. All of it, by prices a little too low, is a queue that grows: who came waited 90 ms for its end */
    HAMI_IDLE_NS = 5 * 1000 * 1000,        /* who has had nothing to run for so long leaves the card to others */
    HAMI_BOUGHT_NS = 500 * 1000 * 1000,    /* who buys says so no further ahead */
};

#define HAMI_USED_MOST_NS ((int64_t)5 * 1000 * 1000 * 1000) /* nobody is taken for a user of the card, nor his queue for full, for longer, unasked */

static inline int64_t hami_page_load(const _Atomic int64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Its queue has been seen full of late: the tenant's own, or some other one's. */
bool hami_page_full(const hami_turns_page *page, int tenant, int64_t now_ns);
bool hami_page_others_full(const hami_turns_page *page, int tenant, int64_t now_ns);

/* No other tenant has wanted the card for `span_ns`. */
bool hami_page_others_idle(const hami_turns_page *page, int tenant, int64_t span_ns, int64_t now_ns);

/*
 * Percent of the card that a tenant has which may use what others leave: those that want it now divide it by what of it is their own. Beside one that wants it
 * and has no full queue it is the tenant's own: each launch of such a one is late by a slice of ours.
 */
int hami_page_part(const hami_turns_page *page, int tenant, int percent, int64_t now_ns);

/* Some other tenant has paid for GPU time of late, by its own word at that moment. */
bool hami_page_others_buy(const hami_turns_page *page, int tenant, int64_t now_ns);

/*
 * The member has neither asked for a turn nor had one of late: it is to enter, and comes back without the time that it did not use, and without what it had
 * beyond the others' (a turn over its weight is left), be it that they were the ones who were away: else one of the two would wait for all of it.
 * A second process of a container changes nothing of what that has had.
 */
bool hami_page_away(const hami_turns_page *page, int member, int64_t now_ns);
void hami_page_enter(hami_turns_page *page, int member, int tenant, int weight, int64_t now_ns);

/* Who of those that wait has had the least for its weight; -1: nobody waits. */
int hami_page_next(const hami_turns_page *page, int64_t now_ns);

/* Some other member waits for its turn. */
bool hami_page_others_ask(const hami_turns_page *page, int member, int64_t now_ns);

/* `holder` of the page: whose turn it is, -1: nobody's; and what stands there next, of that member. */
int hami_page_holder(uint64_t word);
uint64_t hami_page_word(uint64_t before, int member);

#endif
