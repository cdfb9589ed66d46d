/*
 * What measuring needs in each context: events, a word in host memory that gates wait on, and the calibration of what a pair
 * of events adds to what is between them.
 *
 * Everything here is guarded by one lock, which is had while something is measured or read.
 */
#ifndef HAMI_BENCH_H
#define HAMI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "price/cost.h"
#include "process/state.h"

enum {
    HAMI_BENCHES = 16,       /* contexts of a process that are measured */
    HAMI_BENCH_SAMPLES = 16, /* measurements not read yet, a context */
    HAMI_BULK_MARKS = 3      /* events among launches that are measured in bulk (bulk.h) */
};

typedef struct hami_sample {
    hami_card *card;
    hami_cost *cost;
    CUstream stream;
    CUevent start, end;
    int64_t charged_ns; /* for this launch */
    int64_t total_ns;   /* for all of its key up to it */
    int64_t begun_ns;   /* when the host began with it */
    int64_t host_ns; /* not gated: host time between the events, which may be inside the pair; while open, its start */
    uint32_t number; /* of the launch, by its key */
    uint32_t *word;  /* of the gate */
    uint32_t ticket; /* value that opens it; 0: not gated */
    bool pending;    /* end is recorded, not read yet */
    bool ours;       /* it was our turn on the card */
    bool held;       /* its end is waited for, and nothing of ours launched meanwhile */
    bool crowded;    /* launches came from several streams */
    bool spoilt;     /* the gate was opened by force: host delay is inside */
    bool quiet;      /* nothing was queued behind it until it had ended */
} hami_sample;

typedef struct hami_bench {
    CUcontext context; /* NULL: free */
    bool leaving;      /* that is about to end: nothing here may be used */
    uint32_t *word;    /* host memory that gates wait on; NULL: events only */
    CUdeviceptr word_device;
    CUfunction yardstick; /* NULL: no calibration here */
    CUstream side;
    int64_t calibrate_ns; /* when to calibrate next */
    int calibrations;
    int64_t offsets[3]; /* ns, the last ones */
    hami_sample own; /* its events are for calibration */
    CUevent fences[HAMI_FENCES];
    CUevent bulk[HAMI_BULK_MARKS];
    hami_sample samples[HAMI_BENCH_SAMPLES];
} hami_bench;

extern hami_bench hami_benches[HAMI_BENCHES];

/*
 * The lock. Whoever has it is not cancelled. False: another thread has it; or, of the second, this very one, in whose call of the driver a handler of
 * the program's has called us.
 */
bool hami_bench_try(void);
bool hami_bench_enter(void);
void hami_bench_leave(void);

/* Whoever has it takes long: until he leaves no handler runs in his thread, which might not come back to leave. */
void hami_bench_undisturbed(void);

/* The bench of the current context, made and calibrated at its first use, undisturbed. NULL: none, or the context is about to end. */
hami_bench *hami_bench_now(hami_card *card);

/* The same for who goes on into a call of the program's, in which its handlers run: so after making it the lock is left and tried anew. False: it is lost. */
bool hami_bench_find(hami_card *card, hami_bench **bench);

/* Calibrates `bench`; nothing of ours may be on the card, and no capture be under way in this thread. About 1 ms. */
void hami_bench_calibrate(hami_bench *bench, hami_card *card);

/* A value that no gate was opened with yet. */
uint32_t hami_bench_ticket(void);

static inline void hami_bench_open(uint32_t *word, uint32_t ticket)
{
    __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
}

/* Nanoseconds from one event to the other, or -1. */
int64_t hami_bench_elapsed(CUevent start, CUevent end);

#endif
