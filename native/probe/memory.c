/* Takes memory until it is refused, and goes on. See probe.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

void memory(const char *name, size_t chunk)
{
    enum { MOST = 4096 };
    static uint64_t keys[MOST];
    static const route *from[MOST];
    int count = 0, again = 0, order[64];
    CUresult last = CUDA_SUCCESS;
    start(true);
    routes_start(chunk);
    int kinds = 0;
    for (int i = 0; i < route_count; i++) {
        if (strcmp(name, routes[i].name) == 0 || (strcmp(name, "mixed") == 0 && !routes[i].alone))
            order[kinds++] = i;
    }
    if (kinds == 0)
        fail("no such route", 0);
    size_t free_before, total, free_after;
    MUST(cuMemGetInfo, &free_before, &total);
    int refused = 0;
    const size_t ceiling = total > 48 * 1024 * MIB ? 12 * 1024 * MIB : total * 3; /* without a limit: enough is enough */
    size_t taken = 0;
    while (count < MOST && refused < kinds && taken < ceiling) {
        const route *r = &routes[order[(count + refused) % kinds]];
        last = r->take(chunk, &keys[count]);
        if (last == CUDA_SUCCESS) {
            from[count++] = r;
            taken += chunk;
            refused = 0;
        } else {
            refused++;
        }
    }
    const long long nvml = nvml_bytes();
    MUST(cuMemGetInfo, &free_after, &total);
    /* The program goes on: what is freed can be had again. */
    CUresult freed = CUDA_SUCCESS, retaken = CUDA_SUCCESS;
    if (count > 0 && from[count - 1]->give != NULL) {
        freed = from[count - 1]->give(keys[count - 1]);
        retaken = retake(from[count - 1], chunk, &keys[count - 1]);
        again = retaken == CUDA_SUCCESS;
    }
    printf("{\"route\": \"%s\", \"chunk_mib\": %zu, \"taken_mib\": %zu, \"refused_with\": %d, \"nvml_mib\": %.1f, "
           "\"total_mib\": %zu, \"free_mib\": %zu, \"freed\": %d, \"retaken\": %d, \"again\": %d}\n",
           name, chunk / MIB, taken / MIB, last, nvml < 0 ? -1.0 : (double)nvml / (double)MIB, total / MIB, free_after / MIB,
           freed, retaken, again);
}

void hold(size_t mib, double seconds)
{
    CUdeviceptr held;
    begin_together();
    start(false);
    MUST(cuMemAlloc, &held, mib * MIB);
    printf("{\"held_mib\": %zu}\n", mib);
    fflush(stdout);
    usleep((useconds_t)(seconds * 1e6));
}
