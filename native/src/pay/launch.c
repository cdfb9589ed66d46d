/*
 * Hooks of kernel and graph launches: paid for before they go on (pay.h).
 *
 * The way of a launch that is not throttled is one jump through hot.h. Under a limit it leads to a function that ends in a jump too when the
 * thread's lane pays; whatever needs more registers is in another. While functions wait for their local memory (memory/local.h) launches take that
 * way without a limit of time, too.
 */
#include "memory/local.h"
#include "pay/hot.h"
#include "pay/lane.h"
#include "pay/pay.h"

#define ASIDE static __attribute__((noinline))

/* ---- kernels: one price a function and grid ---- */

static inline uint64_t grid(unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz)
{
    const uint64_t blocks = gx ^ (uint64_t)gy << 24 ^ (uint64_t)gz << 44;
    return (blocks * 31 + (uint64_t)bx * by * bz) | 1ull << 63; /* never 0, which means the function as a whole */
}

/*
 * The hook itself: a jump through its place in hami_hot. A compiler would put the arguments that came on the stack back to where they are, one by
 * one.
 */
#if defined(__x86_64__)
#define JUMP(name, place) "endbr64\n jmp *(hami_hot + 8 * " #place ")(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name, place) "hint #34\n adrp x16, hami_hot + 8 * " #place "\n ldr x16, [x16, :lo12:hami_hot + 8 * " #place "]\n br x16\n"
#else
#error "a jump through hami_hot is to be written"
#endif
#define HOOK(name, place)                                                                                      \
    __asm__(".text\n.p2align 5\n.globl " #name "\n.type " #name ", %function\n" #name ":\n" JUMP(name, place) \
            ".size " #name ", . - " #name "\n");

/* What it leads to under a limit: `WHAT` and `AMOUNT` are the launch's key, `on` its stream. */
#define LAUNCH(name, place, WHAT, AMOUNT, on, is_per_thread, parameters, ...)                                       \
    ASIDE CUresult name##_paid parameters                                                                           \
    {                                                                                                               \
        if (!hami_local_fits(f))                                                                                    \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                        \
        if (atomic_load(&hami_hot.behind[place]) == (hami_launch)name##_paid)                                       \
            hami_routes_update(); /* the driver has been found since */                                             \
        if (!THROTTLING)                                                                                            \
            return BEHIND(name, __VA_ARGS__);                                                                       \
        const hami_work work = {.what = (WHAT), .amount = (AMOUNT), .stream = (on), .per_thread = (is_per_thread)}; \
        struct hami_sample *sample = hami_pay(&work);                                                               \
        return hami_paid(sample, BEHIND(name, __VA_ARGS__));                                                        \
    }                                                                                                               \
    static CUresult name##_throttled parameters                                                                     \
    {                                                                                                               \
        CUresult(*next) parameters = name##_paid;                                                                   \
        if (!hami_local_waits(f) && (hami_lane_pays(WHAT, AMOUNT) || !THROTTLING))                                  \
            next = (CUresult(*) parameters)atomic_load_explicit(&hami_hot.behind[place], memory_order_relaxed);     \
        return next(__VA_ARGS__);                                                                                   \
    }
#define LAUNCHES(name, place, WHAT, AMOUNT, on, parameters, ...)                     \
    LAUNCH(name, place, WHAT, AMOUNT, on, false, parameters, __VA_ARGS__)            \
    LAUNCH(name##_ptsz, (place) + 1, WHAT, AMOUNT, on, true, parameters, __VA_ARGS__)

#define GRID grid(gx, gy, gz, bx, by, bz)

LAUNCHES(cuLaunchKernel, HAMI_NEXT_KERNEL, hami_name_of(f), GRID, stream,
         (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
          unsigned int shared, CUstream stream, void **params, void **extra),
         f, gx, gy, gz, bx, by, bz, shared, stream, params, extra)

LAUNCHES(cuLaunchCooperativeKernel, HAMI_NEXT_COOPERATIVE, hami_name_of(f), GRID, stream,
         (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
          unsigned int shared, CUstream stream, void **params),
         f, gx, gy, gz, bx, by, bz, shared, stream, params)

static inline uint64_t grid_of(const CUlaunchConfig *c)
{
    return c == NULL ? 1 : grid(c->gx, c->gy, c->gz, c->bx, c->by, c->bz);
}

LAUNCHES(cuLaunchKernelEx, HAMI_NEXT_EX, hami_name_of(f), grid_of(config), config == NULL ? NULL : config->stream,
         (const CUlaunchConfig *config, CUfunction f, void **params, void **extra), config, f, params, extra)

#define ROUTES(X)                                        \
    X(cuLaunchKernel, 0)                                 \
    X(cuLaunchKernel_ptsz, 1)                            \
    X(cuLaunchCooperativeKernel, 2)                      \
    X(cuLaunchCooperativeKernel_ptsz, 3)                 \
    X(cuLaunchKernelEx, 4)                               \
    X(cuLaunchKernelEx_ptsz, 5)
#define THROTTLED(name, place) [place] = (hami_launch)name##_throttled,
#define PAID_FOR(name, place) [place] = (hami_launch)name##_paid,

hami_hot_t hami_hot = {.next = {ROUTES(THROTTLED)}, .behind = {ROUTES(PAID_FOR)}};
ROUTES(HOOK)

static hami_launch choose(hami_launch behind, hami_launch throttled)
{
    return THROTTLING || behind == NULL || atomic_load(&hami_hot.waiting) > 0 ? throttled : behind;
}

/* Whoever stores last looks again after that: what is left there is of the last change. */
static void route(int place, hami_launch behind, hami_launch throttled)
{
    hami_launch chosen;
    do {
        chosen = choose(behind, throttled);
        atomic_store(&hami_hot.next[place], chosen);
    } while (chosen != choose(behind, throttled));
}

void hami_routes_update(void)
{
#define ROUTE(name, place)                                                               \
    if (hami_behind.name != NULL)                                                        \
        atomic_store(&hami_hot.behind[place], (hami_launch)hami_behind.name);            \
    route(place, (hami_launch)hami_behind.name, (hami_launch)name##_throttled);
    ROUTES(ROUTE)
}

/* Several cards at once: each of them must pay for its part, but one call starts them all; charged on the current card. */
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count, unsigned int flags)
{
    if (count > 0 && launches != NULL && !hami_local_fits(launches[0].f))
        return CUDA_ERROR_OUT_OF_MEMORY;
    PAID(BEHIND(cuLaunchCooperativeKernelMultiDevice, launches, count, flags),
         .what = count == 0 || launches == NULL ? 0 : hami_name_of(launches[0].f),
         .amount = count == 0 || launches == NULL ? 1 : launches[0].gx,
         .stream = count == 0 || launches == NULL ? NULL : launches[0].stream, .waits = true);
}

/* The three of CUDA 2: their block shape is the function's. */
CUresult cuLaunch(CUfunction f)
{
    if (!hami_local_fits(f))
        return CUDA_ERROR_OUT_OF_MEMORY;
    PAID(BEHIND(cuLaunch, f), .what = hami_name_of(f), .amount = 1);
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
    if (!hami_local_fits(f))
        return CUDA_ERROR_OUT_OF_MEMORY;
    PAID(BEHIND(cuLaunchGrid, f, width, height), .what = hami_name_of(f),
         .amount = grid((unsigned int)width, (unsigned int)height, 1, 0, 0, 0));
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    if (!hami_local_fits(f))
        return CUDA_ERROR_OUT_OF_MEMORY;
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
    PAID(hami_graph_run(exec, stream, run_graph), .what = hami_name_of(exec), .amount = 1, .anywhere = true, .stream = stream);
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    PAID(hami_graph_run(exec, stream, run_graph_ptsz), .what = hami_name_of(exec), .amount = 1, .anywhere = true, .stream = stream, .per_thread = true);
}
