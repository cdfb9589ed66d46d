/* A program that works, rests and comes back: what it has done by then, from its first launch after each rest on. See probe.h. */
#include <stdio.h>
#include <unistd.h>

#include "probe.h"

enum {
    BATCH_NS = 1000 * 1000, /* launches of which the end is noted */
    RING = 8,               /* so many batches are left unfinished at most */
    WINDOW_NS = 10 * 1000 * 1000,
    WINDOWS = 100
};

typedef struct {
    int64_t rounds;
    long long batch; /* launches */
    CUstream stream;
    CUevent ring[RING];
} program;

/* When a batch was found through, counted into the window that was then. */
static void note_end(const program *p, long long number, int64_t from, long long *windows)
{
    MUST(cuEventSynchronize, p->ring[number % RING]);
    const int64_t window = (now_ns() - from) / WINDOW_NS;
    if (window < WINDOWS)
        windows[window] += p->batch;
}

static void come_back(const program *p, int64_t work_ns, long long *windows)
{
    const int64_t from = now_ns();
    long long made = 0, through = 0;
    while (now_ns() < from + work_ns) {
        for (long long i = 0; i < p->batch; i++)
            launch_spin(p->rounds, p->stream);
        MUST(cuEventRecord, p->ring[made % RING], p->stream);
        made++;
        if (made - through == RING)
            note_end(p, through++, from, windows);
    }
    while (through < made)
        note_end(p, through++, from, windows);
}

void returns(int64_t ns, int times, int64_t work_ms, int64_t rest_ms)
{
    start(true);
    program p = {.rounds = rounds_of((double)ns), .batch = ns > BATCH_NS ? 1 : BATCH_NS / ns};
    MUST(cuStreamCreate, &p.stream, 1);
    for (int i = 0; i < RING; i++)
        MUST(cuEventCreate, &p.ring[i], 2);
    printf("{\"ns\": %lld, \"batch\": %lld, \"returns\": [", (long long)ns, p.batch);
    for (int i = 0; i < times; i++) {
        long long windows[WINDOWS] = {0};
        come_back(&p, work_ms * 1000000, windows);
        MUST(cuStreamSynchronize, p.stream);
        printf("%s[", i > 0 ? ", " : "");
        for (int w = 0; w < WINDOWS && w * WINDOW_NS < work_ms * 1000000; w++)
            printf("%s%lld", w > 0 ? "," : "", windows[w]);
        printf("]");
        usleep((useconds_t)(rest_ms * 1000 + rest_ms * 130 * (i % 5))); /* no rhythm that the other's turns could have as well */
    }
    printf("]}\n");
}
