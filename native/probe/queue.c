/* What a kernel takes in a full queue, and what pairs of events show of it. See probe.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

/* The least that so many launches take once a gate before them opens. */
static double least_behind_gate(int count, int64_t rounds, CUstream stream, uint32_t *word, CUdeviceptr word_device)
{
    static uint32_t ticket;
    double least = 0;
    for (int i = 0; i < 12; i++) {
        MUST(cuStreamWaitValue32, stream, word_device, ++ticket, 0);
        for (int j = 0; j < count; j++)
            launch_spin(rounds, stream);
        const int64_t from = now_ns();
        __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
        MUST(cuStreamSynchronize, stream);
        const double took = (double)(now_ns() - from);
        least = i < 2 || took < least ? took : least;
    }
    return least;
}

void full(int64_t ns)
{
    CUstream stream;
    void *word = NULL;
    CUdeviceptr word_device;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    launch_spin(1, stream); /* loaded: a gate around a first launch would wait for ever */
    MUST(cuStreamSynchronize, stream);
    MUST(cuMemHostAlloc, &word, 64, 2);
    MUST(cuMemHostGetDevicePointer, &word_device, word, 0);
    memset(word, 0, 64);
    enum { FEW = 200, MANY = 800 };
    const int64_t rounds = rounds_of((double)ns);
    const double few = least_behind_gate(FEW, rounds, stream, word, word_device);
    const double many = least_behind_gate(MANY, rounds, stream, word, word_device);
    printf("{\"ns\": %lld, \"full_ns\": %.1f}\n", (long long)ns, (many - few) / (MANY - FEW));
}

typedef enum { ALONE, BEHIND, HELD } around;

/* Gate, event, kernel, event: ns between the events. */
static double pair(around how, int64_t rounds, CUstream stream, CUevent *events, uint32_t *word, CUdeviceptr word_device, uint32_t ticket)
{
    float ms = 0;
    CUresult (*elapsed)(float *, CUevent, CUevent) = NULL;
    void *address = dlsym(driver, "cuEventElapsedTime");
    memcpy(&elapsed, &address, sizeof elapsed);
    for (int i = 0; how != ALONE && i < 48; i++)
        launch_spin(rounds, stream); /* a stream at work */
    MUST(cuStreamWaitValue32, stream, word_device, ticket, 0);
    MUST(cuEventRecord, events[0], stream);
    launch_spin(rounds, stream);
    MUST(cuEventRecord, events[1], stream);
    for (int i = 0; how == BEHIND && i < 16; i++)
        launch_spin(rounds, stream);
    __atomic_store_n(word, ticket, __ATOMIC_RELEASE);
    MUST(cuEventSynchronize, events[1]);
    MUST(cuStreamSynchronize, stream);
    elapsed(&ms, events[0], events[1]);
    return (double)ms * 1e6;
}

void pairs(int64_t ns)
{
    enum { TIMES = 300 };
    static const char *const names[] = {"alone", "behind", "held"};
    double values[TIMES];
    CUstream stream;
    CUevent events[2];
    void *word = NULL;
    CUdeviceptr word_device;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuEventCreate, &events[0], 0);
    MUST(cuEventCreate, &events[1], 0);
    MUST(cuMemHostAlloc, &word, 64, 2);
    MUST(cuMemHostGetDevicePointer, &word_device, word, 0);
    memset(word, 0, 64);
    launch_spin(1, stream);
    MUST(cuStreamSynchronize, stream);
    uint32_t ticket = 0;
    printf("{\"ns\": %lld", (long long)ns);
    for (around how = ALONE; how <= HELD; how++) {
        double sum = 0;
        for (int i = 0; i < TIMES; i++)
            sum += values[i] = pair(how, rounds_of((double)ns), stream, events, word, word_device, ++ticket);
        qsort(values, TIMES, sizeof values[0], by_value);
        printf(", \"%s\": {\"p5\": %.0f, \"p50\": %.0f, \"p95\": %.0f, \"mean\": %.0f}", names[how], values[TIMES / 20],
               values[TIMES / 2], values[TIMES * 19 / 20], sum / (double)TIMES);
    }
    printf("}\n");
}

/* The least that a graph of `nodes` takes, of several: launched in one piece, and what is least was neither disturbed nor waited for. */
static double least_of(int nodes, int64_t ns, CUstream stream)
{
    CUgraphExec exec = graph_of(nodes, rounds_of((double)ns), stream);
    double least = 0;
    for (int i = 0; i < 8; i++) {
        usleep(100000); /* a limit's budget has filled up again */
        const int64_t from = now_ns();
        MUST(cuGraphLaunch, exec, stream);
        MUST(cuStreamSynchronize, stream);
        const double took = (double)(now_ns() - from);
        least = i < 2 || took < least ? took : least; /* the first two load and wake */
    }
    return least;
}

void queued(int64_t ns)
{
    CUstream stream;
    start(true);
    MUST(cuStreamCreate, &stream, 1);
    const int nodes = ns < 5000 ? 400 : ns < 2000000 ? (int)(2000000 / ns) : 1;
    const double each = (least_of(2 * nodes, ns, stream) - least_of(nodes, ns, stream)) / nodes;
    printf("{\"ns\": %lld, \"queued_ns\": %.1f, \"nodes\": %d, \"rounds_a_ns\": %.6f}\n", (long long)ns, each, nodes, rounds_a_ns);
}
