/* What a program has of the card under a limit, against what its own launches take in a full queue. See probe.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

enum {
    MOST = 800, /* 1024 launches that wait for a gate make the next one wait */
    LEAST = 128,
    QUEUE_NS = 3 * 1000 * 1000, /* and no longer than this */
    TIMES = 12,
    REST_US = 25000, /* then as much budget as may be saved up is there again: what follows is not held back */
    WARM_NS = 400 * 1000 * 1000,
    BATCH = 64, /* as `run` has it */
    RING = 8, /* at most so many batches are left unfinished */
    TENTHS = 600
};

typedef struct {
    int64_t rounds, host_ns;
    int many; /* launches at a time */
    CUstream stream;
    CUevent ring[RING];
    uint32_t *word, ticket;
    CUdeviceptr word_device;
} program;

static void launch(const program *p, int count)
{
    for (int i = 0; i < count; i++) {
        launch_spin(p->rounds, p->stream);
        for (const int64_t until = p->host_ns > 0 ? now_ns() + p->host_ns : 0; until > 0 && now_ns() < until;) {
        }
    }
}

/* ns that so many launches take once a gate before them opens: the host is not in it. */
static double behind_gate(program *p, int count)
{
    const int64_t host_ns = p->host_ns;
    MUST(cuStreamWaitValue32, p->stream, p->word_device, ++p->ticket, 0);
    p->host_ns = 0;
    launch(p, count);
    p->host_ns = host_ns;
    const int64_t from = now_ns();
    __atomic_store_n(p->word, p->ticket, __ATOMIC_RELEASE);
    MUST(cuStreamSynchronize, p->stream);
    return (double)(now_ns() - from);
}

static long long tenths[TENTHS];

/* Launches as `run` does until so many are made or so late it is; how many those were. */
static long long run_on(const program *p, long long most, int64_t from, int64_t until)
{
    long long launches = 0;
    for (int64_t now = from; launches < most && now < until; now = now_ns()) {
        const CUevent e = p->ring[launches / BATCH % RING];
        if (launches >= RING * BATCH)
            MUST(cuEventSynchronize, e);
        for (int i = 0; i < BATCH; i++) {
            launch(p, 1);
            const int64_t tenth = (now_ns() - from) / 100000000;
            tenths[tenth < TENTHS ? tenth : TENTHS - 1]++;
        }
        launches += BATCH;
        MUST(cuEventRecord, e, p->stream);
    }
    MUST(cuStreamSynchronize, p->stream);
    return launches;
}

/* ns that about so many launches take from an idle card on, a limit having saved up as much; how many they are. */
static long long from_rest(const program *p, int count, double *took)
{
    usleep(REST_US);
    const int64_t from = now_ns();
    const long long launches = run_on(p, count, from, INT64_MAX);
    *took = (double)(now_ns() - from);
    return launches;
}

/* Prints what a launch takes behind a gate, and what it takes where the host launches and nothing holds it back: medians of so many looks. */
static void look(program *p, const char *when)
{
    double full[TIMES], alone[TIMES];
    const int many = p->many, few = many / 4;
    for (int i = 0; i < TIMES; i++) {
        full[i] = behind_gate(p, few);
        full[i] = (behind_gate(p, many) - full[i]) / (many - few);
        double short_ns, long_ns;
        const long long fewer = from_rest(p, few / 2, &short_ns), more = from_rest(p, many * 3 / 4, &long_ns);
        alone[i] = (long_ns - short_ns) / (double)(more - fewer);
    }
    qsort(full, TIMES, sizeof full[0], by_value);
    qsort(alone, TIMES, sizeof alone[0], by_value);
    printf(", \"%s\": {\"full_ns\": %.1f, \"full_low\": %.1f, \"full_high\": %.1f, \"alone_ns\": %.1f}", when, full[TIMES / 2], full[1],
           full[TIMES - 2], alone[TIMES / 2]);
}

static void prepare(program *p)
{
    void *word = NULL;
    MUST(cuStreamCreate, &p->stream, 1);
    MUST(cuMemHostAlloc, &word, 64, 2);
    MUST(cuMemHostGetDevicePointer, &p->word_device, word, 0);
    memset(word, 0, 64);
    p->word = word;
    for (int i = 0; i < RING; i++)
        MUST(cuEventCreate, &p->ring[i], 2 | 1);
    /* Until it is loaded, since a gate around a first launch would wait for ever, and its price known to whoever limits it. */
    for (const int64_t until = now_ns() + WARM_NS; now_ns() < until;) {
        launch(p, BATCH);
        MUST(cuStreamSynchronize, p->stream);
    }
}

void share(int64_t ns, double seconds, int64_t host_ns)
{
    start(true);
    const int64_t fit = QUEUE_NS / (ns + 1000);
    program p = {.rounds = rounds_of((double)ns), .host_ns = host_ns, .many = fit > MOST ? MOST : fit < LEAST ? LEAST : (int)fit};
    prepare(&p);
    printf("{\"ns\": %lld, \"host_ns\": %lld", (long long)ns, (long long)host_ns);
    look(&p, "before");
    memset(tenths, 0, sizeof tenths);
    const int64_t from = now_ns();
    run_on(&p, INT64_MAX, from, from + (int64_t)(seconds * 1e9));
    printf(", \"tenths\": [");
    for (int i = 0; i < TENTHS && i < (int)(seconds * 10); i++)
        printf("%s%lld", i ? "," : "", tenths[i]);
    printf("]");
    look(&p, "after");
    printf("}\n");
}
