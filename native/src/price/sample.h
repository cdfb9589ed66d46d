/*
 * Measuring what one launch costs the card, without the host's delays in the figure.
 *
 * The stream waits on a word in host memory; start event, launch and end event are queued behind it; then the word is
 * written. So the pair holds the launch and a constant of the card, which is calibrated (bench.h). One measurement is begun at
 * a time in a process, some 16 may be waiting to be read; a short kernel's is read on the spot, before anything is queued behind it.
 */
#ifndef HAMI_SAMPLE_H
#define HAMI_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "price/cost.h"
#include "process/state.h"

struct hami_sample;
typedef struct hami_sample hami_sample;

/* Starts a measurement around a launch on `stream`. `gated` false: events only, for what must not wait. NULL: not now. */
hami_sample *hami_sample_begin(hami_card *card, hami_cost *cost, CUstream stream, bool gated, uint32_t number,
                               int64_t charged_ns);

/* Ends it; the launch has been queued (or has failed: then it is dropped). */
void hami_sample_end(hami_sample *sample, bool launched);

/*
 * True: this launch is one of a run of a key, which are measured one after the other and not waited for: that costs next to nothing. Beside others,
 * whom each gate may let onto the card, there is a run of one key now and then.
 */
bool hami_sample_in_run(const hami_card *card, const hami_cost *cost);

/* Before that is asked of a launch that is due. */
void hami_sample_run_begins(const hami_card *card, const hami_cost *cost);

/* True for a while after a measurement, so that a program whose prices are known spends little of its time on them. */
bool hami_sample_rests(void);

/* GPU time of what is queued before a launch that has just been paid for, as reckoned from prices; below 0: nothing has been for so long. */
int64_t hami_queued_before_ns(hami_card *card, int64_t price_ns);

/* Reads what has completed. Cheap when nothing has; does nothing while another thread is at it. */
void hami_samples_read(void);

/* Calibrates again when it is time to; for a moment in which launches wait anyway. Costs 3 ms when it does. */
void hami_calibrate(hami_card *card);

#ifdef HAMI_INSIDE
/* For tests/gpu/inside.c: as if so much time had not passed for measurements. */
void hami_sample_later(int64_t ns);
#endif

#endif
