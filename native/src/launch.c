/*
 * Hooks of kernel and graph launches: paid for before they go on (pay.h).
 *
 * The way of a launch that is not throttled is a load, a test and a jump, in one line of the instruction cache: whatever needs more
 * registers is in a function of its own, and that one ends in a jump too when the thread's lane pays.
 */
#include "lane.h"
#include "pay.h"

#define ASIDE static __attribute__((noinline))

/* ---- kernels: one price a function and grid ---- */

static inline uint64_t grid(unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz)
{
    const uint64_t blocks = gx ^ (uint64_t)gy << 24 ^ (uint64_t)gz << 44;
    return (blocks * 31 + (uint64_t)bx * by * bz) | 1ull << 63; /* never 0, which means the function as a whole */
}

/* One hook: `WHAT` and `AMOUNT` are its key, `on` its stream. */
#define LAUNCH(name, WHAT, AMOUNT, on, is_per_thread, parameters, ...)                                              \
    ASIDE CUresult name##_paid parameters                                                                           \
    {                                                                                                               \
        const hami_work work = {.what = (WHAT), .amount = (AMOUNT), .stream = (on), .per_thread = (is_per_thread)}; \
        struct hami_sample *sample = hami_pay(&work);                                                               \
        return hami_paid(sample, BEHIND(name, __VA_ARGS__));                                                        \
    }                                                                                                               \
    ASIDE CUresult name##_throttled parameters                                                                      \
    {                                                                                                               \
        return hami_lane_pays(WHAT, AMOUNT) ? BEHIND(name, __VA_ARGS__) : name##_paid(__VA_ARGS__);                 \
    }                                                                                                               \
    CUresult name parameters                                                                                        \
    {                                                                                                               \
        CUresult(*const next) parameters = THROTTLING || hami_behind.name == NULL ? name##_throttled : hami_behind.name; \
        return next(__VA_ARGS__);                                                                                   \
    }
#define LAUNCHES(name, WHAT, AMOUNT, on, parameters, ...)              \
    LAUNCH(name, WHAT, AMOUNT, on, false, parameters, __VA_ARGS__)     \
    LAUNCH(name##_ptsz, WHAT, AMOUNT, on, true, parameters, __VA_ARGS__)

#define GRID grid(gx, gy, gz, bx, by, bz)

LAUNCHES(cuLaunchKernel, hami_name_of(f), GRID, stream,
         (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
          unsigned int shared, CUstream stream, void **params, void **extra),
         f, gx, gy, gz, bx, by, bz, shared, stream, params, extra)

LAUNCHES(cuLaunchCooperativeKernel, hami_name_of(f), GRID, stream,
         (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
          unsigned int shared, CUstream stream, void **params),
         f, gx, gy, gz, bx, by, bz, shared, stream, params)

static inline uint64_t grid_of(const CUlaunchConfig *c)
{
    return c == NULL ? 1 : grid(c->gx, c->gy, c->gz, c->bx, c->by, c->bz);
}

LAUNCHES(cuLaunchKernelEx, hami_name_of(f), grid_of(config), config == NULL ? NULL : config->stream,
         (const CUlaunchConfig *config, CUfunction f, void **params, void **extra), config, f, params, extra)

/* Several cards at once: each of them must pay for its part, but one call starts them all; charged on the current card. */
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count, unsigned int flags)
{
    PAID(BEHIND(cuLaunchCooperativeKernelMultiDevice, launches, count, flags),
         .what = count == 0 || launches == NULL ? 0 : hami_name_of(launches[0].f),
         .amount = count == 0 || launches == NULL ? 1 : launches[0].gx,
         .stream = count == 0 || launches == NULL ? NULL : launches[0].stream, .waits = true);
}

/* The three of CUDA 2: their block shape is the function's. */
CUresult cuLaunch(CUfunction f)
{
    PAID(BEHIND(cuLaunch, f), .what = hami_name_of(f), .amount = 1);
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
    PAID(BEHIND(cuLaunchGrid, f, width, height), .what = hami_name_of(f),
         .amount = grid((unsigned int)width, (unsigned int)height, 1, 0, 0, 0));
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    PAID(BEHIND(cuLaunchGridAsync, f, width, height, stream), .what = hami_name_of(f),
         .amount = grid((unsigned int)width, (unsigned int)height, 1, 0, 0, 0), .stream = stream);
}

/* ---- graphs: one price a graph ---- */

static CUresult run_graph(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphLaunch, exec, stream);
}

static CUresult run_graph_ptsz(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphLaunch_ptsz, exec, stream);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    PAID(hami_graph_run(exec, stream, run_graph), .what = hami_name_of(exec), .amount = 1, .stream = stream);
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    PAID(hami_graph_run(exec, stream, run_graph_ptsz), .what = hami_name_of(exec), .amount = 1, .stream = stream, .per_thread = true);
}
