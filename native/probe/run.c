/* Runs work for a while and counts launches by window. See probe.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

static void busy_host(int64_t ns)
{
    const int64_t until = now_ns() + ns;
    while (now_ns() < until) {
    }
}

enum { WINDOWS = 6000, LATENCIES = 200000, SLOWEST = 64 };

void run(const char *work, double seconds, int64_t ns, int64_t host_ns)
{
    const bool per_thread = strcmp(work, "ptds") == 0;
    if (per_thread)
        load(true);
    start(true);
    CUstream stream = NULL;
    if (!per_thread)
        MUST(cuStreamCreate, &stream, 1);
    const int64_t rounds = rounds_of((double)ns);
    static const int64_t mixed_ns[] = {2000, 8000, 20000};
    CUgraphExec exec = NULL;
    CUdeviceptr a = 0, b = 0;
    size_t bytes = 0;
    int nodes = 1;
    if (sscanf(work, "graph%d", &nodes) == 1)
        exec = graph_of(nodes, rounds, stream);
    const bool sets = strcmp(work, "memset") == 0, copies = strcmp(work, "copy") == 0;
    const bool asks = strcmp(work, "asks") == 0, sync = asks || strcmp(work, "sync") == 0; /* by asking again and again, or in a call that blocks */
    const bool coop = strcmp(work, "coop") == 0, mixed = strcmp(work, "mixed") == 0, ex = strcmp(work, "ex") == 0;
    const bool wide = strcmp(work, "wide") == 0; /* so many blocks that an int says -2^30; the simulated driver alone runs so many */
    if (sets || copies) {
        bytes = (size_t)ns; /* NS is bytes here */
        MUST(cuMemAlloc, &a, bytes);
        MUST(cuMemAlloc, &b, bytes);
    }
    /* At most 512 launches are left unfinished: then what was launched is what was done, within a moment. */
    enum { RING = 8 };
    CUevent ring[RING];
    const int64_t unit = nodes * (sets || copies ? 20000 : ns > 1000 ? ns : 1000);
    int64_t batch = 4000000 / unit;
    batch = batch < 1 ? 1 : batch > 64 ? 64 : batch;
    for (int i = 0; i < RING; i++) {
        MUST(cuEventCreate, &ring[i], 2 | 1);
    }
    static long long windows[WINDOWS];
    static double took_us[LATENCIES];
    const char *wish = getenv("PROBE_WINDOW_MS");
    const int64_t window_ns = 1000000 * (wish == NULL ? 100 : atoll(wish));
    const int64_t from = now_ns(), until = from + (int64_t)(seconds * 1e9);
    long long launches = 0;
    int64_t now = from;
    for (int64_t i = 0; now < until; i++) {
        CUresult r = CUDA_SUCCESS;
        int64_t mine = mixed ? rounds_of((double)mixed_ns[i % 3]) : rounds;
        void *params[] = {&mine};
        if (exec != NULL)
            r = cu.cuGraphLaunch(exec, stream);
        else if (sets)
            r = cu.cuMemsetD8Async(a, 1, bytes, stream);
        else if (copies)
            r = cu.cuMemcpyDtoDAsync(a, b, bytes, stream);
        else if (coop)
            r = cu.cuLaunchCooperativeKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, params);
        else if (ex)
            r = cu.cuLaunchKernelEx(&(CUlaunchConfig){1, 1, 1, 32, 1, 1, 0, stream, NULL, 0}, spin, params, NULL);
        else
            r = cu.cuLaunchKernel(spin, wide ? 0x60000000 : mixed ? (unsigned int)(1 + i % 3) : 1, wide ? 2 : 1, 1, 32, 1, 1, 0, stream, params, NULL);
        if (r != CUDA_SUCCESS)
            fail(work, r);
        launches++;
        if (sync) {
            while (asks && (r = cu.cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY) {
            }
            if (!asks)
                r = cu.cuStreamSynchronize(stream);
            if (r != CUDA_SUCCESS)
                fail(work, r);
            took_us[(launches - 1) % LATENCIES] = (double)(now_ns() - now) / 1e3;
        }
        if (host_ns > 0)
            busy_host(host_ns);
        if (launches % batch == 0) {
            CUevent e = ring[launches / batch % RING];
            if (launches / batch >= RING)
                MUST(cuEventSynchronize, e);
            MUST(cuEventRecord, e, stream);
        }
        now = now_ns();
        const int64_t window = (now - from) / window_ns;
        if (window < WINDOWS)
            windows[window]++;
    }
    MUST(cuStreamSynchronize, stream);
    const double took = (double)(now_ns() - from) / 1e9;
    printf("{\"kept_s\": %.3f, \"work\": \"%s\", \"ns\": %lld, \"host_ns\": %lld, \"seconds\": %.4f, \"launches\": %lld, \"rate\": %.3f, "
           "\"rounds_a_ns\": %.6f, \"begun_ns\": %lld, ",
           kept_waiting(), work, (long long)ns, (long long)host_ns, took, launches, (double)launches / took, rounds_a_ns, (long long)from);
    const size_t kept = (size_t)(launches < LATENCIES ? launches : LATENCIES);
    qsort(took_us, kept, sizeof took_us[0], by_value);
    if (sync && kept > 0) {
        printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"slowest_us\": [", took_us[kept / 2], took_us[kept * 99 / 100]);
        for (size_t i = kept > SLOWEST ? kept - SLOWEST : 0; i < kept; i++)
            printf("%.0f%s", took_us[i], i + 1 < kept ? "," : "], ");
    }
    printf("\"%s\": [", window_ns == 100000000 ? "tenths" : "windows");
    for (int i = 0; i < WINDOWS && i < (int)(seconds * 1e9 / (double)window_ns); i++)
        printf("%s%lld", i ? "," : "", windows[i]);
    printf("]}\n");
}
