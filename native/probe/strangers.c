/* A program of more kernels than anybody keeps prices of. See probe.h. */
#include <stdio.h>
#include <stdlib.h>

#include "probe.h"

enum { AHEAD = 64 /* launches that are left unfinished, at most */ };

/* A real driver answers the same name with the same handle: there it is one function with as many grids. */
static CUfunction *functions_of(int count)
{
    CUmodule module;
    CUfunction *all = calloc((size_t)count, sizeof *all);
    MUST(cuModuleLoadData, &module, ptx);
    for (int i = 0; i < count; i++)
        MUST(cuModuleGetFunction, &all[i], module, "spin");
    return all;
}

void strangers(int count, double seconds, int64_t ns)
{
    CUstream stream;
    int64_t rounds;
    start(true);
    rounds = rounds_of((double)ns);
    void *params[] = {&rounds};
    CUfunction *all = functions_of(count);
    MUST(cuStreamCreate, &stream, 1);
    for (int i = 0; i < count; i++) { /* once each, unhurried: after that all are known that ever will be */
        MUST(cuLaunchKernel, all[i], (unsigned int)i + 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
        if (i % AHEAD == 0)
            MUST(cuStreamSynchronize, stream);
    }
    MUST(cuStreamSynchronize, stream);
    const int64_t begun = now_ns(), until = begun + (int64_t)(seconds * 1e9);
    int64_t from = 0; /* of the second half: in the first prices are learned */
    long long launches = 0, before = 0;
    for (; now_ns() < until; launches++) {
        const unsigned int at = (unsigned int)(launches % count);
        MUST(cuLaunchKernel, all[at], at + 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
        if (launches % AHEAD == 0)
            MUST(cuStreamSynchronize, stream);
        if (from == 0 && now_ns() - begun > (until - begun) / 2) {
            from = now_ns();
            before = launches;
        }
    }
    MUST(cuStreamSynchronize, stream);
    printf("{\"functions\": %d, \"rate\": %.1f}\n", count, (double)(launches - before) / ((double)(now_ns() - from) / 1e9));
}
