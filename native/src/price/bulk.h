/*
 * Prices of kernels, sets and copies, measured in bulk.
 *
 * A pair of events around one launch shows some tenths of a microsecond too much or too little, other ones from process to process; around a set
 * or copy of memory more. That is little of a millisecond, but some percent of 2 us. So now and then 44 launches of a thread, one after the other in
 * one stream, go behind one gate: eight until the card fetches launches at its usual pace, then four and then twenty-eight between events, and four.
 * What the twenty-eight took more than the four is a full queue, and nothing of the events is in it. By how much the prices of these launches are
 * wrong is taken off them, and off what single pairs show from then on (hami_cost_unbias): of short kernels, whatever their keys, the middle of the
 * last times; of longer launches, where a dozen of the same key are enough, a mean of that key's. A program's own event takes the card 3 us: what one
 * came into says nothing.
 *
 * The gate stays closed for half a millisecond of launching at most; whoever waits for the card meanwhile is let go by the watch thread.
 */
#ifndef HAMI_BULK_H
#define HAMI_BULK_H

#include <stdbool.h>
#include <stdint.h>

#include "price/cost.h"
#include "process/state.h"

/* GPU time that is paid for in advance for one that begins with a launch at this price; what is not used is given back. */
int64_t hami_bulk_pays_ns(int64_t price_ns);

/* True: it is time for one that begins with a launch at this price, of a key of these figures. */
bool hami_bulk_wanted(const hami_card *card, const hami_cost *cost, int64_t price_ns);

/* Begins one with the launch that was counted last; `prepaid_ns` is for those that follow. Nothing of other threads is launched meanwhile. */
void hami_bulk_begin(hami_card *card, hami_cost *cost, CUstream stream, int64_t price_ns, uint32_t number, int64_t prepaid_ns);

/* True: this thread's launches are being measured. */
bool hami_bulk_mine(void);

/*
 * True: the launch is in and paid for, and is to be counted; false: it does not fit, and the measurement is over. `cost` NULL: it may wait
 * for the card.
 */
bool hami_bulk_takes(const hami_card *card, const hami_cost *cost, CUstream stream, int64_t price_ns);

/* It was counted under that number. */
void hami_bulk_counted(hami_cost *cost, int64_t price_ns, uint32_t number);

/* A launch has been made: ends the measurement when it is the last. */
void hami_bulk_made(void);

/* Ends it where it is this thread's and in that stream, which is about to be destroyed: whatever has its handle next is none of it. */
void hami_bulk_stream_gone(CUstream stream);

/* Nobody is kept out any longer for it, or for one whose thread does not come back: its gate was opened by force. */
void hami_bulk_forced(void);

/* True: one is under way, so no other measurement may be begun. */
bool hami_bulk_under_way(void);

struct hami_bench;

/* Ends it where it is of this bench, whose events are about to go; NULL, in a forked child: any. */
void hami_bulk_forget(const struct hami_bench *bench);

#ifdef HAMI_INSIDE
/* For tests/gpu/inside.c: as if so much time had not passed for what is measured in bulk. */
void hami_bulk_later(int64_t ns);
#endif

#endif
