/*
 * Bursts: launches of a program of several streams, from a dry card to a dry card.
 *
 * In a burst of 40 ms each stream may launch what is through by its end, reckoned from prices. Whoever wants more waits until its stream is, closes the burst,
 * and sees to it that all streams are marked by an event and have run dry; the time from the start to the last of these events is what the
 * burst is charged (overlap.h). Whoever comes first after that buys the next one. Every launch of a burst is seen, so lanes are not used.
 * No event is recorded while anything is being captured: then bursts end, and launches are paid for one by one.
 */
#ifndef HAMI_BURST_H
#define HAMI_BURST_H

#include <stdbool.h>
#include <stdint.h>

#include "process/state.h"

typedef enum {
    HAMI_BURST_NONE,   /* there are no bursts any more: to be paid for as usual */
    HAMI_BURST_JOINED, /* it may launch now; hami_burst_made is due after that */
    HAMI_BURST_FIRST   /* likewise, and nothing of ours is on the card */
} hami_burst_part;

/* True: launches on this card go in bursts; from this one on when `crowded`, it would have to wait, and it is time to look. */
bool hami_burst_goes(hami_card *card, bool crowded, int64_t price_ns);

/* Waits until a launch at that price may go on `stream`. */
hami_burst_part hami_burst_join(hami_card *card, CUstream stream, int64_t price_ns);

/* What this thread joined with last, if anything, has been launched. */
void hami_burst_made(void);

/* Something begins to be captured: afterwards nobody is about to record an event here. */
void hami_burst_pause(void);

/* A context has gone, and all events in it. */
void hami_burst_context_gone(CUcontext context);

/* A stream is about to be destroyed: the end of what it has in a burst is marked while that can still be done. */
void hami_burst_stream_gone(CUstream stream);

/* In a forked child. */
void hami_burst_forget(void);

#endif
