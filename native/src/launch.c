/*
 * Hooks of everything that runs on the card: paid for from the compute budget before it goes on.
 *
 * Unlimited, a hook is one load and a jump. Limited and not blocked, it is a price lookup and a subtraction; one launch in
 * about 64 is measured (gate.h). No driver query, lock or system call on that path.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "cost.h"
#include "gate.h"
#include "prim/prim.h"
#include "state.h"

enum {
    PATIENCE_NS = 20 * 1000 * 1000, /* longest wait for the first figures of an unknown key: it may depend on a later launch */
    PROBATION = 3,                  /* figures before an unknown key may have several launches in flight */
    PAUSE_NS = 1000 * 1000,
    HIGH_NS = 10 * 1000 * 1000,         /* a tenant of high priority that launched within this time is at work */
    YIELD_MOST_NS = 1000 * 1000 * 1000, /* longest pause for it */
    EXCUSED_NS = 5 * 1000 * 1000,       /* what is run then */
    DRAIN_POLL_NS = 100 * 1000,
    FENCE_POLL_NS = 10 * 1000,
    DRAIN_MOST_NS = 100 * 1000 * 1000   /* beyond what was reckoned; then the turn is handed on all the same */
};

static _Atomic(hami_cost *) table;
static _Atomic int captures; /* stream captures begun and not ended, all threads */

static hami_cost *costs(void)
{
    hami_cost *keys = atomic_load_explicit(&table, memory_order_acquire);
    if (keys == NULL) {
        const size_t bytes = HAMI_COST_KEYS * sizeof *keys;
        void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED)
            return NULL;
        if (!atomic_compare_exchange_strong(&table, &keys, fresh))
            munmap(fresh, bytes);
        keys = atomic_load(&table);
    }
    return keys;
}

/* What is to be launched: `what` names it (a function, a graph, an operation), `amount` says how much of it. */
typedef struct {
    uint64_t what, amount;
    CUstream stream;
    bool per_thread; /* stream 0 means the per-thread stream */
    bool waits;      /* the call may wait for the card: no gate around it */
} work;

typedef struct {
    hami_sample *sample;
} ticket;

static bool captured(const work *w)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (atomic_load_explicit(&captures, memory_order_relaxed) == 0)
        return false;
    /* The legacy stream answers with an error while others capture; then this launch fails anyway. */
    return USE(cuStreamIsCapturing, w->stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/*
 * Waits until what this process has launched is through, and hands its turn on. Of several threads one does it; while anything is
 * being captured no event may be recorded, and then the reckoned time has to do.
 */
static void drain(hami_card *card, CUstream stream, int64_t reckoned_ns)
{
    if (atomic_exchange(&card->draining, true)) {
        hami_sleep_coarse_ns(DRAIN_POLL_NS);
        return;
    }
    const bool fenced = atomic_load(&captures) == 0 && hami_fence(card, stream);
    const int64_t begun_ns = hami_now_ns();
    const int64_t most = reckoned_ns + DRAIN_MOST_NS;
    hami_sleep_until_ns(reckoned_ns - DRAIN_POLL_NS);
    while (fenced && hami_now_ns() < most && !hami_fence_passed(card)) {
        pthread_mutex_lock(&card->pacing);
        hami_turn_draining(&card->pacer, hami_now_ns());
        pthread_mutex_unlock(&card->pacing);
        const int64_t now = hami_now_ns();
        if (now < reckoned_ns + DRAIN_POLL_NS)
            hami_sleep_until_ns(now + FENCE_POLL_NS);
        else
            hami_sleep_coarse_ns(DRAIN_POLL_NS);
    }
    pthread_mutex_lock(&card->pacing);
    const int64_t over_ns = hami_now_ns();
    card->pacer.had.drains++;
    card->pacer.had.drained_ns += over_ns - begun_ns;
    hami_turn_over(&card->pacer, over_ns);
    pthread_mutex_unlock(&card->pacing);
    atomic_store(&card->draining, false);
}

/* Sleeps until it is worth asking again; at most 20 ms, so that a changed limit is felt. */
static void wait(hami_card *card, bool for_turn, uint32_t handed, int64_t until)
{
    const int64_t now = hami_now_ns();
    if (for_turn && until > now)
        hami_futex_wait_shared(&card->pacer.page->handed, handed, until - now);
    else
        hami_sleep_until_ns(until - now > PATIENCE_NS ? now + PATIENCE_NS : until);
}

/* One try to buy. True: bought. */
static bool try_to_buy(hami_card *card, int64_t need_ns, int percent, CUstream stream)
{
    hami_ledger_card *shared = &hami_state.ledger->cards[card->ledger_index];
    int64_t until = 0;
    pthread_mutex_lock(&card->pacing);
    hami_pacer *p = &card->pacer;
    const uint32_t handed = p->page == NULL ? 0 : atomic_load(&p->page->handed);
    const hami_step step = hami_pace(p, &shared->paid_until_ns, &card->purse, need_ns, percent, hami_now_ns(), &until);
    const bool for_turn = p->waiting_ns != 0;
    pthread_mutex_unlock(&card->pacing);
    if (step == HAMI_DRAIN)
        drain(card, stream, until);
    pthread_mutex_lock(&card->pacing);
    const bool wake = p->handed && p->page != NULL;
    p->handed = false;
    pthread_mutex_unlock(&card->pacing);
    if (wake)
        hami_futex_wake_shared(&p->page->handed);
    if (step == HAMI_WAIT)
        wait(card, for_turn, handed, until);
    return step == HAMI_GO;
}

/* Buys what the purse lacks, old debt included, waiting for the budget and for our turn. */
static void buy(hami_card *card, int64_t need_ns, CUstream stream)
{
    const int64_t debt_ns = -atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed);
    if (need_ns < debt_ns)
        need_ns = debt_ns; /* two threads may both buy it; what is too much is spent later */
    hami_ledger_card *shared = &hami_state.ledger->cards[card->ledger_index];
    const int kept = errno;
    const int64_t begun = hami_now_ns();
    for (;;) {
        const int percent = atomic_load_explicit(&card->percent, memory_order_relaxed);
        if (percent >= 100 || atomic_load_explicit(&hami_throttling, memory_order_relaxed) == 0) {
            hami_budget_correct(&card->purse, -need_ns); /* the limit was lifted while waiting */
            break;
        }
        if (try_to_buy(card, need_ns, percent, stream))
            break;
    }
    const int64_t now = hami_now_ns();
    atomic_store_explicit(&shared->launched_ns, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->busy_ns, need_ns + HAMI_SLAB_NS, memory_order_relaxed);
    atomic_store_explicit(&card->launched_ns, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&card->busy_ns, need_ns + HAMI_SLAB_NS, memory_order_relaxed);
    atomic_fetch_add_explicit(&card->waited_ns, now - begun, memory_order_relaxed);
    hami_samples_read();
    if (atomic_load_explicit(&captures, memory_order_relaxed) == 0)
        hami_calibrate(card);
    errno = kept;
}

/* An unknown key: wait for the figures of its earlier launches, so that a thousand long kernels are not queued unseen. */
static void probation(hami_cost *cost)
{
    const int64_t until = hami_now_ns() + PATIENCE_NS;
    while (atomic_load(&cost->samples) < PROBATION && atomic_load(&cost->in_flight) > 0 && hami_now_ns() < until) {
        hami_samples_read();
        if (atomic_load(&cost->in_flight) > 0)
            hami_sleep_until_ns(hami_now_ns() + 20 * 1000);
    }
}

/* Of a time that anybody may have written. */
static bool recent(int64_t high_ns, int64_t now)
{
    return high_ns > now - HIGH_NS && high_ns < now + HIGH_NS;
}

/*
 * Where priorities are mixed on the card: the high one leaves word that it launches, the low one yields while it does. Whatever stands
 * in the shared page, the low one launches for 5 ms of each second.
 */
static void respect_priority(hami_card *card)
{
    hami_turns_page *page = card->pacer.page;
    if (page == NULL || !atomic_load_explicit(&card->mixed, memory_order_relaxed))
        return;
    int64_t now = hami_now_ns();
    if (!atomic_load_explicit(&card->low, memory_order_relaxed)) {
        atomic_store_explicit(&page->high_ns, now, memory_order_relaxed);
        return;
    }
    while (atomic_load_explicit(&card->mixed, memory_order_relaxed) && now > atomic_load(&card->excused_ns) &&
           recent(atomic_load_explicit(&page->high_ns, memory_order_relaxed), now)) {
        int64_t since = 0;
        if (!atomic_compare_exchange_strong(&card->yielded_ns, &since, now) && now - since > YIELD_MOST_NS) {
            atomic_store(&card->yielded_ns, 0);
            atomic_store(&card->excused_ns, now + EXCUSED_NS);
            return;
        }
        hami_sleep_coarse_ns(PAUSE_NS);
        now = hami_now_ns();
    }
    if (now > atomic_load(&card->excused_ns))
        atomic_store(&card->yielded_ns, 0);
}

/* Pays for `w`, waiting if need be, and begins a measurement when one is due. */
static ticket pay(const work *w)
{
    ticket t = {NULL};
    hami_card *card = hami_card_now();
    if (card == NULL || captured(w))
        return t;
    respect_priority(card);
    const bool limited = atomic_load_explicit(&card->percent, memory_order_relaxed) < 100;
    hami_cost *all = limited ? costs() : NULL;
    if (all == NULL)
        return t;
    const uint64_t index = (uint64_t)(card - hami_state.cards);
    hami_cost *cost = hami_cost_find(all, hami_cost_key(w->what, w->amount, index));
    if (cost == NULL)
        cost = hami_cost_find(all, hami_cost_key(w->what, 0, index)); /* table full here: by function alone */
    if (cost == NULL)
        return t;
    bool known = atomic_load_explicit(&cost->launches, memory_order_relaxed) > 0;
    int64_t price = atomic_load_explicit(&cost->price_ns, memory_order_relaxed);
    if (atomic_load_explicit(&cost->samples, memory_order_relaxed) < PROBATION) {
        /* A grid not seen yet of a function seen before: its price to begin with, and it is loaded, so a gate is safe. */
        hami_cost *family = hami_cost_find(all, hami_cost_key(w->what, 0, index));
        if (family != NULL) {
            known |= atomic_fetch_add_explicit(&family->launches, 1, memory_order_relaxed) > 0;
            if (price == 0)
                price = atomic_load_explicit(&family->price_ns, memory_order_relaxed);
            else
                atomic_store_explicit(&family->price_ns, price, memory_order_relaxed);
        }
        probation(cost);
    }
    const int64_t need = hami_purse_spend(&card->purse, price);
    if (need > 0 || atomic_load_explicit(&card->purse.credit_ns, memory_order_relaxed) < 0)
        buy(card, need, w->per_thread && w->stream == NULL ? CU_STREAM_PER_THREAD : w->stream);
    const uint32_t number = hami_cost_due(cost);
    if (number != 0 && atomic_load_explicit(&captures, memory_order_relaxed) == 0) {
        /* A gate closed around the first launch of a function deadlocks: loading it waits for the card. */
        const bool gated = known && !w->waits;
        const CUstream stream = w->per_thread && w->stream == NULL ? CU_STREAM_PER_THREAD : w->stream;
        t.sample = hami_sample_begin(card, cost, stream, gated, number, price);
    }
    return t;
}

static CUresult paid(ticket t, CUresult result)
{
    if (t.sample != NULL)
        hami_sample_end(t.sample, result == CUDA_SUCCESS);
    return result;
}

#define THROTTLING __builtin_expect(atomic_load_explicit(&hami_throttling, memory_order_relaxed) != 0, 0)

/* Pays, then calls; straight on when nothing is throttled. */
#define PAID(call, ...)                          \
    do {                                         \
        if (!THROTTLING)                         \
            return (call);                       \
        const work w_ = {__VA_ARGS__};           \
        const ticket t_ = pay(&w_);              \
        return paid(t_, (call));                 \
    } while (0)

static inline uint64_t name_of(const void *handle)
{
    return (uint64_t)(uintptr_t)handle;
}

/* ---- kernels ---- */

static inline uint64_t grid(unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz)
{
    const uint64_t blocks = gx ^ (uint64_t)gy << 24 ^ (uint64_t)gz << 44;
    return (blocks * 31 + (uint64_t)bx * by * bz) | 1ull << 63; /* never 0, which means the function as a whole */
}

#define KERNEL .what = name_of(f), .amount = grid(gx, gy, gz, bx, by, bz), .stream = stream

CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
                        unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra)
{
    PAID(BEHIND(cuLaunchKernel, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra), KERNEL);
}

CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
                             unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra)
{
    PAID(BEHIND(cuLaunchKernel_ptsz, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra), KERNEL, .per_thread = true);
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                                   unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params)
{
    PAID(BEHIND(cuLaunchCooperativeKernel, f, gx, gy, gz, bx, by, bz, shared, stream, params), KERNEL);
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params)
{
    PAID(BEHIND(cuLaunchCooperativeKernel_ptsz, f, gx, gy, gz, bx, by, bz, shared, stream, params), KERNEL, .per_thread = true);
}

static uint64_t grid_of(const CUlaunchConfig *c)
{
    return c == NULL ? 1 : grid(c->gx, c->gy, c->gz, c->bx, c->by, c->bz);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    PAID(BEHIND(cuLaunchKernelEx, config, f, params, extra), .what = name_of(f), .amount = grid_of(config),
         .stream = config == NULL ? NULL : config->stream);
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    PAID(BEHIND(cuLaunchKernelEx_ptsz, config, f, params, extra), .what = name_of(f), .amount = grid_of(config),
         .stream = config == NULL ? NULL : config->stream, .per_thread = true);
}

/* Several cards at once: each of them must pay for its part, but one call starts them all; charged on the current card. */
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count, unsigned int flags)
{
    PAID(BEHIND(cuLaunchCooperativeKernelMultiDevice, launches, count, flags),
         .what = count == 0 || launches == NULL ? 0 : name_of(launches[0].f),
         .amount = count == 0 || launches == NULL ? 1 : launches[0].gx,
         .stream = count == 0 || launches == NULL ? NULL : launches[0].stream, .waits = true);
}

/* The three of CUDA 2: their block shape is the function's. */
CUresult cuLaunch(CUfunction f)
{
    PAID(BEHIND(cuLaunch, f), .what = name_of(f), .amount = 1);
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
    PAID(BEHIND(cuLaunchGrid, f, width, height), .what = name_of(f),
         .amount = grid((unsigned int)width, (unsigned int)height, 1, 0, 0, 0));
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    PAID(BEHIND(cuLaunchGridAsync, f, width, height, stream), .what = name_of(f),
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
    PAID(hami_graph_run(exec, stream, run_graph), .what = name_of(exec), .amount = 1, .stream = stream);
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    PAID(hami_graph_run(exec, stream, run_graph_ptsz), .what = name_of(exec), .amount = 1, .stream = stream, .per_thread = true);
}

/* ---- sets and copies on the card: one price an operation and size, eight sizes an octave ---- */

enum { OP_SET = 1, OP_COPY, OP_COPY_2D, OP_COPY_3D, OP_COPY_ARRAY, OP_COPY_BATCH, OP_SET_2D };

static uint64_t size_class(uint64_t bytes)
{
    if (bytes < 16)
        return bytes + 1;
    const int octave = 63 - __builtin_clzll(bytes);
    return (uint64_t)octave << 8 | (bytes >> (octave - 3) & 7) | 1u << 16;
}

static uint64_t area(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

#define OP(op, bytes) .what = (uint64_t)(op) << 56, .amount = size_class(bytes)

#define SETS(width, type)                                                                                               \
    CUresult cuMemsetD##width##_v2(CUdeviceptr to, type value, size_t count)                                            \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##_v2, to, value, count), OP(OP_SET, area(count, sizeof(type))), .waits = true);    \
    }                                                                                                                   \
    CUresult cuMemsetD##width##_v2_ptds(CUdeviceptr to, type value, size_t count)                                       \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##_v2_ptds, to, value, count), OP(OP_SET, area(count, sizeof(type))),               \
             .per_thread = true, .waits = true);                                                                        \
    }                                                                                                                   \
    CUresult cuMemsetD##width##Async(CUdeviceptr to, type value, size_t count, CUstream stream)                         \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##Async, to, value, count, stream), OP(OP_SET, area(count, sizeof(type))),          \
             .stream = stream);                                                                                         \
    }                                                                                                                   \
    CUresult cuMemsetD##width##Async_ptsz(CUdeviceptr to, type value, size_t count, CUstream stream)                    \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##Async_ptsz, to, value, count, stream), OP(OP_SET, area(count, sizeof(type))),     \
             .stream = stream, .per_thread = true);                                                                     \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##_v2(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows)             \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##_v2, to, pitch, value, columns, rows),                                          \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .waits = true);                                    \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##_v2_ptds(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows)        \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##_v2_ptds, to, pitch, value, columns, rows),                                     \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .per_thread = true, .waits = true);                \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##Async(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows,           \
                                       CUstream stream)                                                                 \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##Async, to, pitch, value, columns, rows, stream),                                \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .stream = stream);                                 \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##Async_ptsz(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows,      \
                                            CUstream stream)                                                            \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##Async_ptsz, to, pitch, value, columns, rows, stream),                           \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .stream = stream, .per_thread = true);             \
    }
SETS(8, unsigned char)
SETS(16, unsigned short)
SETS(32, unsigned int)

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID(BEHIND(cuMemcpyDtoD_v2, to, from, bytes), OP(OP_COPY, bytes), .waits = true);
}

CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID(BEHIND(cuMemcpyDtoD_v2_ptds, to, from, bytes), OP(OP_COPY, bytes), .per_thread = true, .waits = true);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID(BEHIND(cuMemcpyDtoDAsync_v2, to, from, bytes, stream), OP(OP_COPY, bytes), .stream = stream);
}

CUresult cuMemcpyDtoDAsync_v2_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID(BEHIND(cuMemcpyDtoDAsync_v2_ptsz, to, from, bytes, stream), OP(OP_COPY, bytes), .stream = stream, .per_thread = true);
}

static bool on_card(CUdeviceptr address)
{
    unsigned int type = 0;
    return USE(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) == CUDA_SUCCESS &&
           type == CU_MEMORYTYPE_DEVICE;
}

/* Copies with host memory on one side run on copy engines and are not charged; here only the addresses tell. */
#define PAID_IF(condition, call, ...)       \
    do {                                    \
        if (!THROTTLING || !(condition))    \
            return (call);                  \
        PAID(call, __VA_ARGS__);            \
    } while (0)

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpy, to, from, bytes), OP(OP_COPY, bytes), .waits = true);
}

CUresult cuMemcpy_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpy_ptds, to, from, bytes), OP(OP_COPY, bytes), .per_thread = true,
            .waits = true);
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpyAsync, to, from, bytes, stream), OP(OP_COPY, bytes), .stream = stream);
}

CUresult cuMemcpyAsync_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpyAsync_ptsz, to, from, bytes, stream), OP(OP_COPY, bytes),
            .stream = stream, .per_thread = true);
}

static bool stays_2d(const CUDA_MEMCPY2D *c)
{
    return c != NULL && c->from_type != CU_MEMORYTYPE_HOST && c->to_type != CU_MEMORYTYPE_HOST;
}

static bool stays_3d(const CUDA_MEMCPY3D *c)
{
    return c != NULL && c->from_type != CU_MEMORYTYPE_HOST && c->to_type != CU_MEMORYTYPE_HOST;
}

#define BYTES_2D area(copy->width_bytes, copy->height)
#define BYTES_3D area(area(copy->width_bytes, copy->height), copy->depth)

#define COPY_2D(name)                                                                                  \
    CUresult name(const CUDA_MEMCPY2D *copy)                                                           \
    {                                                                                                  \
        PAID_IF(stays_2d(copy), BEHIND(name, copy), OP(OP_COPY_2D, BYTES_2D), .waits = true);          \
    }                                                                                                  \
    CUresult name##_ptds(const CUDA_MEMCPY2D *copy)                                                    \
    {                                                                                                  \
        PAID_IF(stays_2d(copy), BEHIND(name##_ptds, copy), OP(OP_COPY_2D, BYTES_2D), .per_thread = true, .waits = true); \
    }
COPY_2D(cuMemcpy2D_v2)
COPY_2D(cuMemcpy2DUnaligned_v2)

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    PAID_IF(stays_2d(copy), BEHIND(cuMemcpy2DAsync_v2, copy, stream), OP(OP_COPY_2D, BYTES_2D), .stream = stream);
}

CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    PAID_IF(stays_2d(copy), BEHIND(cuMemcpy2DAsync_v2_ptsz, copy, stream), OP(OP_COPY_2D, BYTES_2D), .stream = stream,
            .per_thread = true);
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3D_v2, copy), OP(OP_COPY_3D, BYTES_3D), .waits = true);
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *copy)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3D_v2_ptds, copy), OP(OP_COPY_3D, BYTES_3D), .per_thread = true, .waits = true);
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3DAsync_v2, copy, stream), OP(OP_COPY_3D, BYTES_3D), .stream = stream);
}

CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3DAsync_v2_ptsz, copy, stream), OP(OP_COPY_3D, BYTES_3D), .stream = stream,
            .per_thread = true);
}

#define COPY_ARRAY(name, parameters, ...)                                                                  \
    CUresult name parameters                                                                               \
    {                                                                                                      \
        PAID(BEHIND(name, __VA_ARGS__), OP(OP_COPY_ARRAY, bytes), .waits = true);                          \
    }                                                                                                      \
    CUresult name##_ptds parameters                                                                        \
    {                                                                                                      \
        PAID(BEHIND(name##_ptds, __VA_ARGS__), OP(OP_COPY_ARRAY, bytes), .per_thread = true, .waits = true); \
    }
COPY_ARRAY(cuMemcpyAtoD_v2, (CUdeviceptr to, CUarray array, size_t offset, size_t bytes), to, array, offset, bytes)
COPY_ARRAY(cuMemcpyDtoA_v2, (CUarray array, size_t offset, CUdeviceptr from, size_t bytes), array, offset, from, bytes)
COPY_ARRAY(cuMemcpyAtoA_v2, (CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes), to, to_offset, from,
           from_offset, bytes)

/* Bytes of a batch that stay on the card; 0: none. */
static uint64_t batch_bytes(const CUdeviceptr *to, const CUdeviceptr *from, const size_t *bytes, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; to != NULL && from != NULL && bytes != NULL && i < count; i++)
        sum += on_card(to[i]) && on_card(from[i]) ? bytes[i] : 0;
    return sum;
}

#define COPY_BATCH(name, is_per_thread, parameters, ...)                                                    \
    CUresult name parameters                                                                                \
    {                                                                                                       \
        const uint64_t sum = THROTTLING ? batch_bytes(to, from, bytes, count) : 0;                          \
        PAID_IF(sum > 0, BEHIND(name, __VA_ARGS__), OP(OP_COPY_BATCH, sum), .stream = stream,               \
                .per_thread = is_per_thread);                                                               \
    }
#define BATCH (CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, void *attrs, size_t *indices, \
               size_t attr_count, size_t *failed, CUstream stream)
#define BATCH_V2 (CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, void *attrs, size_t *indices, \
                  size_t attr_count, CUstream stream)
COPY_BATCH(cuMemcpyBatchAsync, false, BATCH, to, from, bytes, count, attrs, indices, attr_count, failed, stream)
COPY_BATCH(cuMemcpyBatchAsync_ptsz, true, BATCH, to, from, bytes, count, attrs, indices, attr_count, failed, stream)
COPY_BATCH(cuMemcpyBatchAsync_v2, false, BATCH_V2, to, from, bytes, count, attrs, indices, attr_count, stream)
COPY_BATCH(cuMemcpyBatchAsync_v2_ptsz, true, BATCH_V2, to, from, bytes, count, attrs, indices, attr_count, stream)

/* ---- captures: what is captured does not run, so it is not paid for, and gets no events ---- */

static CUresult begun(CUresult result)
{
    if (result == CUDA_SUCCESS)
        atomic_fetch_add(&captures, 1);
    return result;
}

static CUresult ended(CUresult result)
{
    int now = atomic_load(&captures);
    while (result != CUDA_ERROR_INVALID_VALUE && now > 0 && !atomic_compare_exchange_weak(&captures, &now, now - 1)) {
    }
    return result;
}

/* Counted before the driver sees it: a launch of another thread must not put an event into a capture just begun. */
#define BEGIN(name, parameters, ...)                                \
    CUresult name parameters                                        \
    {                                                               \
        atomic_fetch_add(&captures, 1);                             \
        const CUresult result = begun(BEHIND(name, __VA_ARGS__));   \
        atomic_fetch_sub(&captures, 1);                             \
        return result;                                              \
    }
#define BOTH(X, name, parameters, ...) X(name, parameters, __VA_ARGS__) X(name##_ptsz, parameters, __VA_ARGS__)
BOTH(BEGIN, cuStreamBeginCapture, (CUstream stream), stream)
BOTH(BEGIN, cuStreamBeginCapture_v2, (CUstream stream, int mode), stream, mode)
BOTH(BEGIN, cuStreamBeginCaptureToGraph,
     (CUstream stream, CUgraph graph, const CUgraphNode *nodes, const void *edges, size_t count, int mode), stream, graph, nodes,
     edges, count, mode)
BOTH(BEGIN, cuStreamBeginRecaptureToGraph, (CUstream stream, int mode, CUgraph graph, void *callback, void *user), stream, mode,
     graph, callback, user)

CUresult cuStreamEndCapture(CUstream stream, CUgraph *out)
{
    return ended(BEHIND(cuStreamEndCapture, stream, out));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *out)
{
    return ended(BEHIND(cuStreamEndCapture_ptsz, stream, out));
}
