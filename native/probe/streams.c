/* Threads with streams of their own, all at work or one alone. See probe.h. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "probe.h"

enum { MOST_STREAMS = 64, BATCH = 8, RING = 4 /* at most so many batches of a stream are left unfinished */ };

typedef struct {
    CUstream stream;
    CUevent ring[RING];
    long long batches;
} lane;

typedef struct {
    int number, streams;
    bool own; /* the stream is the thread's default one */
    unsigned int blocks;
    int64_t rounds, from, until, phase_ns;
    long long launches[2]; /* in phases of all, of one alone */
    lane lanes[MOST_STREAMS];
} worker;

static void make(lane *l, bool own)
{
    if (!own)
        MUST(cuStreamCreate, &l->stream, 1);
    for (int i = 0; i < RING; i++)
        MUST(cuEventCreate, &l->ring[i], 2 | 1);
}

static void launch_batch(const worker *w, lane *l)
{
    CUevent e = l->ring[l->batches % RING];
    int64_t rounds = w->rounds;
    void *params[] = {&rounds};
    if (l->batches >= RING)
        MUST(cuEventSynchronize, e);
    for (int i = 0; i < BATCH; i++) {
        MUST(cuLaunchKernel, spin, w->blocks, 1, 1, 32, 1, 1, 0, l->stream, params, NULL);
        count_launches(w->from, now_ns(), 1);
    }
    MUST(cuEventRecord, e, l->stream);
    l->batches++;
}

static void *work_in_phases(void *argument)
{
    worker *w = argument;
    MUST(cuCtxSetCurrent, context);
    for (int i = 0; i < w->streams; i++)
        make(&w->lanes[i], w->own);
    for (int64_t now = now_ns(); now < w->until; now = now_ns()) {
        const bool alone = w->phase_ns > 0 && (now - w->from) / w->phase_ns % 2 == 1;
        const int streams = !alone ? w->streams : w->number == 0;
        for (int i = 0; i < streams; i++)
            launch_batch(w, &w->lanes[i]);
        w->launches[alone] += (long long)streams * BATCH;
        if (streams == 0)
            usleep(500);
    }
    for (int i = 0; i < w->streams; i++)
        MUST(cuStreamSynchronize, w->lanes[i].stream);
    thread_ends();
    return NULL;
}

void streams(int threads, int each, double seconds, int64_t ns, unsigned int blocks, int64_t phase_ns)
{
    enum { MOST_THREADS = 16 };
    static worker workers[MOST_THREADS];
    pthread_t running[MOST_THREADS];
    long long launches[2] = {0};
    const bool own = each == 0;
    if (own)
        load(true);
    start(true);
    each = own ? 1 : each;
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    each = each > MOST_STREAMS ? MOST_STREAMS : each;
    const int64_t from = now_ns();
    for (int i = 0; i < threads; i++) {
        workers[i] = (worker){.number = i, .streams = each, .own = own, .blocks = blocks, .rounds = rounds_of((double)ns), .from = from,
                              .until = from + (int64_t)(seconds * 1e9), .phase_ns = phase_ns};
        if (pthread_create(&running[i], NULL, work_in_phases, &workers[i]) != 0)
            fail("pthread_create", 0);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(running[i], NULL);
        launches[0] += workers[i].launches[0];
        launches[1] += workers[i].launches[1];
    }
    const double took = (double)(now_ns() - from) / 1e9;
    printf("{\"kept_s\": %.3f, \"streams\": %d, \"seconds\": %.4f, \"together\": %lld, \"alone\": %lld, \"rate\": %.1f, ", kept_waiting(),
           threads * each, took, launches[0], launches[1], (double)(launches[0] + launches[1]) / took);
    print_tenths(seconds);
    printf("}\n");
}
