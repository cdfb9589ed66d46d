/* Threads that come and go, each with a stream of its own. See probe.h. */
#include <pthread.h>
#include <stdio.h>

#include "probe.h"

typedef struct {
    int64_t rounds, from, until;
    long long launches;
} worker;

static void *work_for_a_while(void *argument)
{
    worker *w = argument;
    CUstream stream;
    const int64_t leave = now_ns() + 100000000;
    MUST(cuCtxSetCurrent, context);
    MUST(cuStreamCreate, &stream, 1);
    for (w->launches = 0; now_ns() < leave && now_ns() < w->until; w->launches++) {
        launch_spin(w->rounds, stream);
        count_launches(w->from, now_ns(), 1);
        if (w->launches % 32 == 31)
            MUST(cuStreamSynchronize, stream);
    }
    MUST(cuStreamSynchronize, stream);
    MUST(cuStreamDestroy, stream);
    thread_ends();
    return NULL;
}

void threads(int count, double seconds, int64_t ns)
{
    enum { MOST = 64 };
    pthread_t running[MOST];
    worker workers[MOST];
    long long launches = 0;
    int started = 0;
    start(true);
    count = count > MOST ? MOST : count;
    const int64_t from = now_ns(), until = from + (int64_t)(seconds * 1e9);
    for (; now_ns() < until; started += count) {
        for (int i = 0; i < count; i++) {
            workers[i] = (worker){.rounds = rounds_of((double)ns), .from = from, .until = until};
            if (pthread_create(&running[i], NULL, work_for_a_while, &workers[i]) != 0)
                fail("pthread_create", 0);
        }
        for (int i = 0; i < count; i++) {
            pthread_join(running[i], NULL);
            launches += workers[i].launches;
        }
    }
    printf("{\"kept_s\": %.3f, \"threads\": %d, \"launches\": %lld, \"rate\": %.1f, ", kept_waiting(), started, launches,
           (double)launches / ((double)(now_ns() - from) / 1e9));
    print_tenths(seconds);
    printf("}\n");
}
