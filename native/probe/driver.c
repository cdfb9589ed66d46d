/* Finding the driver, its first card and kernels of known length. See probe.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

const char ptx[] =
    ".version 6.4\n.target sm_50\n.address_size 64\n"
    ".visible .entry nothing()\n{\n ret;\n}\n"
    /* Fixed work, not fixed time: a time slice given to another process shows. */
    ".visible .entry spin(.param .u64 rounds)\n{\n"
    " .reg .u64 %n; .reg .f32 %f; .reg .pred %p;\n"
    " ld.param.u64 %n, [rounds];\n mov.f32 %f, 0f3F800000;\n"
    "again:\n"
    " fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n fma.rn.f32 %f, %f, %f, %f;\n"
    " sub.u64 %n, %n, 1;\n setp.gt.u64 %p, %n, 0;\n @%p bra again;\n"
    " setp.eq.f32 %p, %f, 0f3F8CCCCD;\n @%p trap;\n ret;\n}\n";

probe_driver cu;
CUresult (*get_proc_address)(const char *, void **, int, cuuint64_t, int *);
void *driver;
CUdevice device;
CUcontext context;
CUfunction spin, nothing;
double rounds_a_ns = 1;

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void begin_together(void)
{
    const char *begin = getenv("PROBE_BEGIN_AT");
    char line[16];
    if (getenv("PROBE_BEGIN_WHEN_TOLD") != NULL) {
        printf("{\"ready\": true}\n");
        fflush(stdout);
        if (fgets(line, sizeof line, stdin) == NULL)
            fail("nobody said when", 0);
    }
    while (begin != NULL && (double)now_ns() / 1e9 < atof(begin))
        usleep(1000);
}

static int64_t waits_of(const char *path)
{
    long long waited = 0;
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%*d %lld", &waited) != 1)
            waited = 0;
        fclose(file);
    }
    return waited;
}

static _Atomic int64_t ended_waits_ns;

void thread_ends(void)
{
    atomic_fetch_add(&ended_waits_ns, waits_of("/proc/thread-self/schedstat"));
}

double kept_waiting(void)
{
    int64_t waited = atomic_load(&ended_waits_ns);
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *each; threads != NULL && (each = readdir(threads)) != NULL;) {
        char path[300];
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", each->d_name);
        waited += waits_of(path);
    }
    if (threads != NULL)
        closedir(threads);
    return (double)waited / 1e9;
}

void fail(const char *what, CUresult result)
{
    printf("{\"error\": \"%s\", \"code\": %d}\n", what, result);
    exit(1);
}

int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void resolve(const char *name, void *field, cuuint64_t flags)
{
    void *address = NULL;
    int status = 0;
    get_proc_address(name, &address, 12080, flags, &status); /* the version that fixes these signatures */
    memcpy(field, &address, sizeof address);
}

void load(bool per_thread)
{
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == NULL)
        fail(dlerror(), 0);
    void *address = dlsym(driver, "cuGetProcAddress_v2");
    memcpy(&get_proc_address, &address, sizeof address);
    if (address == NULL)
        fail("cuGetProcAddress_v2", 0);
#define RESOLVE(name, arguments) resolve(#name, &cu.name, per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : 1);
    FUNCTIONS(RESOLVE)
}

void launch_spin(int64_t rounds, CUstream stream)
{
    void *params[] = {&rounds};
    const CUresult r = cu.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
    if (r != CUDA_SUCCESS)
        fail("cuLaunchKernel", r);
}

int64_t rounds_of(double ns)
{
    const int64_t rounds = (int64_t)(ns * rounds_a_ns);
    return rounds < 1 ? 1 : rounds;
}

void start(bool with_kernels)
{
    MUST(cuInit, 0);
    const char *which = getenv("PROBE_DEVICE");
    MUST(cuDeviceGet, &device, which == NULL ? 0 : atoi(which));
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    if (!with_kernels)
        return;
    CUmodule module;
    MUST(cuModuleLoadData, &module, ptx);
    MUST(cuModuleGetFunction, &spin, module, "spin");
    MUST(cuModuleGetFunction, &nothing, module, "nothing");
    const char *fixed = getenv("PROBE_ROUNDS_A_NS");
    if (fixed != NULL) {
        rounds_a_ns = atof(fixed);
        return;
    }
    /* Warm clocks, then time one long kernel. */
    launch_spin(200000, NULL);
    MUST(cuCtxSynchronize);
    const int64_t warm = now_ns();
    while (now_ns() - warm < 300000000) {
        launch_spin(1000000, NULL);
        MUST(cuCtxSynchronize);
    }
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const int64_t from = now_ns();
        launch_spin(20000000, NULL);
        MUST(cuCtxSynchronize);
        const double rate = 2e7 / (double)(now_ns() - from);
        best = rate > best ? rate : best;
    }
    rounds_a_ns = best;
}

CUgraphExec graph_of(int nodes, int64_t rounds, CUstream stream)
{
    CUgraph graph;
    CUgraphExec exec;
    MUST(cuStreamBeginCapture, stream, 2);
    for (int i = 0; i < nodes; i++)
        launch_spin(rounds, stream);
    MUST(cuStreamEndCapture, stream, &graph);
    MUST(cuGraphInstantiateWithFlags, &exec, graph, 0);
    return exec;
}
