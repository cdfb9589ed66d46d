/*
 * Streams in a burst, and the marks of their ends. See burst.h.
 *
 * A stream's end can be marked by any thread while the stream is known to be there, so the hooks of what destroys streams tell; that of a
 * per-thread default stream only by its own thread, which does so when it launches no more in this burst, and now and then before: a mark takes the card as long as a
 * short kernel. Where it has not, its end is reckoned: from the last mark, by the prices of what was launched since. (A mark in the legacy stream would wait for all
 * others, and others for it: a program of which one stream waits for its host might stand still.)
 * Nothing is marked while anything is being captured. The caller has the burst's lock, but for `inside`.
 */
#ifndef HAMI_STRAND_H
#define HAMI_STRAND_H

#include <stdbool.h>
#include <stdint.h>

#include "process/driver.h"

enum { HAMI_STRANDS = 128 /* streams in a burst, at most: as many kernels may run at the same time on a card */ };

typedef struct {
    CUstream stream; /* NULL: the legacy stream */
    uint32_t thread; /* whose, of a per-thread default stream */
    CUevent end;
    int64_t through_ns; /* when they are through, as reckoned from prices */
    int64_t unmarked_ns; /* prices of those behind the last mark */
    int launches;
    _Atomic int inside; /* of these, such as have joined and are not made */
    bool marked; /* `end` was recorded in this burst */
    bool gone;  /* the stream is destroyed */
    bool ended; /* `end` is recorded behind all of them */
} hami_strand;

typedef struct {
    int64_t begun_ns;
    CUstream side; /* nothing but `start` is ever recorded in it, so that is passed at once */
    CUevent start;
    int count;
    hami_strand all[HAMI_STRANDS];
} hami_strands;

/* Events and a stream, in the current context. */
bool hami_strands_make(hami_strands *strands);

/* Begins a burst. False: the driver refused. */
bool hami_strands_begin(hami_strands *strands);

/* That of `stream` as this thread names it; NULL: too many. */
hami_strand *hami_strand_of(hami_strands *strands, CUstream stream);

/* Marks the end of what has been launched on it. False: that is not possible now, nor can it be reckoned. */
bool hami_strand_end(hami_strand *strand);

/* It has launched: marks its end if no other thread can and it is time to. `last`: it may launch no more. */
void hami_strand_launched(hami_strand *strand, bool last);

/* True: the card has got to its end. */
bool hami_strand_passed(const hami_strands *strands, const hami_strand *strand);

/* From the start to the last end, ns; 0: unknown. All ends are passed. */
int64_t hami_strands_span(const hami_strands *strands);

/* How many streams have launched. */
int hami_strands_used(const hami_strands *strands);

/* The stream is about to be destroyed. */
void hami_strands_gone(hami_strands *strands, CUstream stream);

#endif
