/*
 * All that a launch looks at before it goes on, in one pair of lines of the data cache: by the time a program launches again, the driver has
 * thrown out nearly everything.
 *
 * The hooks of launches are a jump through `next`: straight to the driver while nothing is throttled, else to what takes the price out of
 * the thread's lane (lane.h), and then goes on through `behind`.
 */
#ifndef HAMI_HOT_H
#define HAMI_HOT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void (*hami_launch)(void); /* any of the hooks, as its caller sees it */

enum {
    HAMI_NEXT_KERNEL,
    HAMI_NEXT_KERNEL_PTSZ,
    HAMI_NEXT_COOPERATIVE,
    HAMI_NEXT_COOPERATIVE_PTSZ,
    HAMI_NEXT_EX,
    HAMI_NEXT_EX_PTSZ,
    HAMI_NEXTS
};

typedef struct {
    _Alignas(128) _Atomic(hami_launch) next[HAMI_NEXTS];
    _Atomic ptrdiff_t mine;  /* from the thread pointer to `hami_mine`; valid once `lanes_open` has been true */
    _Atomic int captures;    /* begun and not ended, all threads */
    _Atomic bool lanes_open; /* one priority, and it is known which card a thread launches on: nothing has to be asked before a launch */
    _Atomic bool measuring;  /* a short kernel is being measured: nothing of this process runs beside it */
    _Atomic uint16_t waiting; /* functions that may need more local memory than contexts have, not launched yet (memory/local.h) */
    _Alignas(64) _Atomic(hami_launch) behind[HAMI_NEXTS]; /* the driver's; where it has none what says so */
} hami_hot_t;

static_assert(offsetof(hami_hot_t, behind) == 64 && sizeof(hami_hot_t) == 128, "two lines, which are fetched together");

extern hami_hot_t hami_hot;

/* After any change of `hami_throttling`, and when the driver has been found: chooses `next` again. */
void hami_routes_update(void);

#endif
