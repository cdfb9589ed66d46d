/*
 * Paying for what runs on the card, before it goes on.
 *
 * Unlimited, a hook is one load and a jump. Limited and not blocked, a kernel's is a look into the thread's own lane
 * (lane.h) and a subtraction. The rest is here: a price, the purse, now and then a purchase (buy.h) and a measurement (sample.h).
 */
#ifndef HAMI_PAY_H
#define HAMI_PAY_H

#include "process/driver.h"
#include "process/state.h"

/* What is to be launched: `what` names it (a function, a graph, an operation), `amount` says how much of it. */
typedef struct {
    uint64_t what, amount;
    CUstream stream;
    bool per_thread; /* stream 0 means the per-thread stream */
    bool waits;      /* the call may wait for the card: no gate around it */
    bool anywhere;   /* the stream may be of another card's context than the current one */
    hami_card *card; /* whose it is, whatever context is current; NULL: the stream's, or the current one's */
} hami_work;

/* Pays, waiting if need be; the measurement that it began around the launch, NULL: none. */
struct hami_sample *hami_pay(const hami_work *work);

/* After the call, which had `result`: ends the measurement. */
CUresult hami_paid(struct hami_sample *sample, CUresult result);

#define THROTTLING __builtin_expect(atomic_load(&hami_throttling) != 0, 0)

/* Pays, then calls; straight on when nothing is throttled. */
#define PAID(call, ...)                               \
    do {                                              \
        if (!THROTTLING)                              \
            return (call);                            \
        const hami_work w_ = {__VA_ARGS__};           \
        struct hami_sample *s_ = hami_pay(&w_);       \
        return hami_paid(s_, (call));                 \
    } while (0)

static inline uint64_t hami_name_of(const void *handle)
{
    return (uint64_t)(uintptr_t)handle;
}

#endif
