/*
 * Waits by asking: who asks again and again whether work of his is through, until it is, has waited for the card as one does in a call that blocks.
 * Who asks now and then between other things has not: a purchase for a launch ends what was begun, and a few answers are none. Pure: the clock is passed in.
 */
#ifndef HAMI_POLLS_H
#define HAMI_POLLS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HAMI_ASKED_LEAST = 40, /* answers of a wait: who asks less often sees the end of it late, and leaves the card idle meanwhile */
    HAMI_ASKED_NS = 2 * 1000 * 1000 /* of several things that are asked for by turns the first counts, until it has not been for so long */
};

/* Of a thread. All 0: it has not asked. */
typedef struct {
    const void *what;          /* a stream or an event */
    int64_t since_ns, last_ns; /* of the answers in a row that it is not through: all that time there was work on the card */
    int64_t bought;            /* as it was then */
    int answers;
} hami_polls;

/* The thread has an answer; `bought` changes with each purchase. Since when it had waited, up to `last_ns`; 0: that is not the end of a wait. */
static inline int64_t hami_polled(hami_polls *p, const void *what, bool through, int64_t bought, int64_t now)
{
    const bool waits = p->since_ns != 0 && bought == p->bought;
    if (waits && what != p->what && now - p->last_ns <= HAMI_ASKED_NS)
        return 0;
    if (!through) {
        if (!waits || what != p->what)
            *p = (hami_polls){.what = what, .since_ns = now, .bought = bought};
        p->last_ns = now;
        p->answers += p->answers < HAMI_ASKED_LEAST;
        return 0;
    }
    const int64_t since = waits && what == p->what && p->answers >= HAMI_ASKED_LEAST ? p->since_ns : 0;
    p->since_ns = 0;
    return since;
}

#endif
