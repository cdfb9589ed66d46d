/*
 * Whether a program's streams overlap, and what a burst of it is charged.
 *
 * A card runs small kernels of several streams at the same time, so what such a program occupies is less than its kernels take one by one. It
 * is let launch in bursts, from a dry card to a dry card; each burst is charged the time from its start to its last end, or the sum of its
 * kernels' prices where that is less (a host that launches slowly leaves gaps). So whoever ceases to overlap pays for it in that very burst.
 * A program that gains nothing by bursts is paid for launch by launch again, and looked at again a quarter of a second later, then ever later.
 *
 * Pure: no clock, no driver.
 */
#ifndef HAMI_OVERLAP_H
#define HAMI_OVERLAP_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HAMI_BURST_MOST_NS = 40 * 1000 * 1000,  /* a burst */
    HAMI_BURST_LOOK_NS = 5 * 1000 * 1000,   /* likewise, until it is known that streams overlap */
    HAMI_BURST_PAUSE_NS = 80 * 1000 * 1000, /* what follows on a burst at a low limit */
    HAMI_OVERLAP_AGAIN_NS = 250 * 1000 * 1000 /* a program that gained nothing is looked at again after so long, */
};

#define HAMI_OVERLAP_SELDOM_NS ((int64_t)4 * 1000 * 1000 * 1000) /* and if it has never yet after twice as long, up to this */

/* What is known of a burst when it is over. */
typedef struct {
    int64_t prices_ns; /* sum of what its kernels take one by one */
    int64_t span_ns;   /* from its start to its last end, by the card's clock; 0: could not be measured */
    int streams;       /* that launched in it */
    bool unpriced;     /* there were kernels in it whose price is not known yet */
} hami_burst_had;

typedef struct {
    int seen, dull;     /* bursts since it began; and how many in a row showed no overlap */
    int64_t charged_ns; /* the last one */
    int64_t again_ns;   /* after which it is looked at again */
} hami_overlap;

/* Length of the next burst. */
int64_t hami_burst_length_ns(const hami_overlap *overlap, int percent);

/* Begins anew: what it was before says how soon it is to be looked at again. */
void hami_overlap_begin(hami_overlap *overlap);

/* What a burst is charged. */
int64_t hami_burst_charge(const hami_burst_had *had);

/* Takes a burst in. False: bursts gain nothing here. */
bool hami_overlap_goes_on(hami_overlap *overlap, const hami_burst_had *had);

#endif
