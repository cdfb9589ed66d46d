/* Many threads take and give back memory in several ways, launch, and ask, all at once. See probe.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "probe.h"

enum { HELD = 6, MOST_THREADS = 64 };

typedef struct {
    uint64_t dice, keys[HELD];
    const route *of[HELD];
    long rounds, taken, refused, faults, launches;
    CUstream stream;
    CUmemoryPool pool;
    int last_fault;
} stormer;

static uint64_t roll(stormer *s)
{
    s->dice ^= s->dice << 13;
    s->dice ^= s->dice >> 7;
    return s->dice ^= s->dice << 17;
}

static void note(stormer *s, CUresult result)
{
    s->taken += result == CUDA_SUCCESS;
    s->refused += result == CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_OUT_OF_MEMORY) {
        s->faults++;
        s->last_fault = result;
    }
}

/* One of the ways that are charged before they are taken; module data is not, its size shows only afterwards. */
static const route *any_route(stormer *s)
{
    static const char *const names[] = {"linear", "pitch", "managed", "vmm", "array", "mipmap", "async"};
    const char *name = names[roll(s) % (sizeof names / sizeof names[0])];
    for (int i = 0; i < route_count; i++) {
        if (routes[i].name[0] == name[0] && routes[i].name[1] == name[1] && routes[i].name[2] == name[2])
            return &routes[i];
    }
    return &routes[0];
}

static void take_or_give(stormer *s)
{
    const int at = (int)(roll(s) % HELD);
    if (s->of[at] == NULL) {
        const route *r = any_route(s);
        const CUresult result = r->take((size_t)(1 + roll(s) % 64) * 8 * MIB, &s->keys[at]);
        note(s, result);
        s->of[at] = result == CUDA_SUCCESS ? r : NULL;
    } else {
        const CUresult result = s->of[at]->give(s->keys[at]);
        s->faults += result != CUDA_SUCCESS;
        s->of[at] = NULL;
    }
}

static void work(stormer *s)
{
    CUdeviceptr pooled;
    size_t left, total;
    switch (roll(s) % 8) {
    case 0:
        MUST(cuMemGetInfo, &left, &total);
        s->faults += left > total;
        break;
    case 1: {
        const CUresult result = cu.cuMemAllocFromPoolAsync(&pooled, (size_t)(roll(s) % 16 + 1) * MIB, s->pool, s->stream);
        note(s, result);
        if (result == CUDA_SUCCESS)
            MUST(cuMemFreeAsync, pooled, s->stream);
        break;
    }
    case 2:
        MUST(cuStreamSynchronize, s->stream);
        break;
    case 3:
        nvml_bytes();
        break;
    default:
        launch_spin(rounds_of(5000), s->stream);
        s->launches++;
    }
}

static void *rage(void *argument)
{
    stormer *s = argument;
    const CUmemPoolProps props = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
    MUST(cuCtxSetCurrent, context);
    MUST(cuStreamCreate, &s->stream, 1);
    MUST(cuMemPoolCreate, &s->pool, &props);
    for (long i = 0; i < s->rounds; i++) {
        take_or_give(s);
        work(s);
    }
    for (int at = 0; at < HELD; at++) {
        if (s->of[at] != NULL)
            s->faults += s->of[at]->give(s->keys[at]) != CUDA_SUCCESS;
    }
    MUST(cuStreamSynchronize, s->stream);
    MUST(cuStreamDestroy, s->stream);
    return NULL;
}

void storm(int threads_wanted, long rounds, uint64_t seed)
{
    static stormer all[MOST_THREADS];
    pthread_t running[MOST_THREADS];
    stormer sum = {0};
    start(true);
    routes_start(2 * MIB);
    nvml_bytes(); /* finds the card, for all threads */
    begin_together();
    const int count = threads_wanted > MOST_THREADS ? MOST_THREADS : threads_wanted;
    for (int i = 0; i < count; i++) {
        all[i] = (stormer){.dice = (seed * 64 + (uint64_t)i + 1) * 0x9e3779b97f4a7c15u, .rounds = rounds};
        if (pthread_create(&running[i], NULL, rage, &all[i]) != 0)
            fail("pthread_create", 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(running[i], NULL);
        sum.taken += all[i].taken;
        sum.refused += all[i].refused;
        sum.faults += all[i].faults;
        sum.launches += all[i].launches;
        sum.last_fault = all[i].last_fault != 0 ? all[i].last_fault : sum.last_fault;
    }
    printf("{\"threads\": %d, \"taken\": %ld, \"refused\": %ld, \"launches\": %ld, \"faults\": %ld, \"last_fault\": %d, "
           "\"nvml_mib\": %.1f}\n",
           count, sum.taken, sum.refused, sum.launches, sum.faults, sum.last_fault, (double)nvml_bytes() / (double)MIB);
}
