/*
 * Hooks of what the driver takes without being asked for bytes: contexts, modules, the device heap.
 *
 * Their size is known only afterwards, from NVML. So: reserve what the last one took, call, look, and undo the call if the
 * slice is now overdrawn.
 */
#include "lane.h"
#include "log.h"
#include "state.h"

enum { NEAR_BYTES = 1 << 30, SLACK_BYTES = 64 << 20 }; /* what an estimate may be off by before something is undone for it */

static bool overdrawn(hami_card *card)
{
    const int64_t limit = atomic_load(&card->limit);
    if (limit == HAMI_UNLIMITED || hami_ledger_held(hami_state.ledger, card->ledger_index) <= limit + SLACK_BYTES)
        return false;
    hami_ledger_reap(hami_state.ledger); /* some of it may be of the dead */
    return hami_ledger_held(hami_state.ledger, card->ledger_index) > limit + SLACK_BYTES;
}

static int64_t unattributed(hami_card *card)
{
    return hami_state.ledger->slots[hami_state.slot].cards[card->ledger_index].held[HAMI_UNATTRIBUTED];
}

/* ---- contexts ---- */

typedef struct {
    hami_card *card;
    int64_t estimate, before; /* bytes */
} making;

static _Atomic int64_t *size_known(hami_card *card)
{
    return &hami_state.ledger->cards[card->ledger_index].context_bytes;
}

static bool context_begin(making *m, CUdevice device)
{
    m->card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    if (m->card == NULL)
        return true;
    m->estimate = atomic_load(size_known(m->card));
    if (m->estimate == 0) {
        hami_reconcile(m->card);
        m->before = unattributed(m->card);
    }
    return hami_take(m->card, HAMI_CONTEXT, m->estimate);
}

/*
 * True when the context fits; otherwise the caller undoes it. The first context of a container is measured; the others are
 * charged its size and set right by the next look at NVML, which so does not stand in the way of 64 processes starting.
 */
static bool context_end(making *m, CUresult result)
{
    if (m->card == NULL)
        return true;
    if (m->estimate > 0 && result == CUDA_SUCCESS) {
        atomic_store(&m->card->reconcile_due, true);
        return true;
    }
    hami_give(m->card, HAMI_CONTEXT, m->estimate);
    if (result != CUDA_SUCCESS || !hami_reconcile(m->card))
        return true;
    const int64_t took = unattributed(m->card) - m->before;
    if (!overdrawn(m->card)) {
        if (took > 0)
            atomic_store(size_known(m->card), took);
        return true;
    }
    hami_log(HAMI_LOG_WARN, "a context of %lld bytes does not fit into the slice", (long long)took);
    return false;
}

/* A context has ended: give back what an estimate charged for it. The next look at NVML has the last word. */
static void context_gone(hami_card *card)
{
    hami_give(card, HAMI_CONTEXT, atomic_load(size_known(card)));
}

static void look_again(CUdevice device)
{
    hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    if (card != NULL)
        hami_reconcile(card);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    unsigned int flags = 0;
    int active = 0;
    if (USE(cuDevicePrimaryCtxGetState, device, &flags, &active) != CUDA_SUCCESS || active)
        return BEHIND(cuDevicePrimaryCtxRetain, out, device); /* another reference takes nothing */
    making m;
    if (!context_begin(&m, device))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuDevicePrimaryCtxRetain, out, device);
    if (context_end(&m, result)) {
        if (result == CUDA_SUCCESS && m.card != NULL)
            atomic_store(&m.card->primary, *out);
        return result;
    }
    BEHIND(cuDevicePrimaryCtxRelease_v2, device);
    look_again(device);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

#define CREATE(name, parameters, ...)                       \
    CUresult name parameters                                \
    {                                                       \
        making m;                                           \
        if (!context_begin(&m, device))                     \
            return CUDA_ERROR_OUT_OF_MEMORY;                \
        const CUresult result = BEHIND(name, __VA_ARGS__);  \
        hami_lane_follow(NULL);                             \
        if (context_end(&m, result))                        \
            return result;                                  \
        BEHIND(cuCtxDestroy_v2, *out);                      \
        look_again(device);                                 \
        return CUDA_ERROR_OUT_OF_MEMORY;                    \
    }
CREATE(cuCtxCreate, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuCtxCreate_v2, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuCtxCreate_v3, (CUcontext * out, void *affinity, int count, unsigned int flags, CUdevice device), out, affinity, count,
       flags, device)
CREATE(cuCtxCreate_v4, (CUcontext * out, void *params, unsigned int flags, CUdevice device), out, params, flags, device)

/* ---- their end: what a context held goes with it ---- */

static void all_due(void)
{
    for (int i = 0; i < hami_state.card_count; i++)
        atomic_store(&hami_state.cards[i].reconcile_due, true);
}

#define DESTROY(name)                              \
    CUresult name(CUcontext context)               \
    {                                              \
        hami_card *card = hami_card_now();         \
        hami_context_gone(context);                \
        const CUresult result = BEHIND(name, context); \
        hami_lane_context_gone();                  \
        if (result == CUDA_SUCCESS) {              \
            hami_memory_gone(context);             \
            if (card != NULL)                      \
                context_gone(card);                \
        }                                          \
        all_due();                                 \
        return result;                             \
    }
DESTROY(cuCtxDestroy)
DESTROY(cuCtxDestroy_v2)

/* Only the last reference ends a primary context. */
static CUresult primary_end(CUresult result, CUdevice device)
{
    hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    unsigned int flags = 0;
    int active = 1;
    if (card == NULL || USE(cuDevicePrimaryCtxGetState, device, &flags, &active) != CUDA_SUCCESS || active)
        return result;
    CUcontext context = atomic_exchange(&card->primary, NULL);
    if (context != NULL) {
        hami_context_gone(context);
        hami_lane_context_gone();
        hami_memory_gone(context);
        context_gone(card);
    }
    all_due();
    return result;
}

#define PRIMARY_END(name)                                  \
    CUresult name(CUdevice device)                         \
    {                                                      \
        return primary_end(BEHIND(name, device), device);  \
    }
PRIMARY_END(cuDevicePrimaryCtxRelease)
PRIMARY_END(cuDevicePrimaryCtxRelease_v2)

/* A reset ends it whoever else holds it; another holder may bring it back at once, so drop first. */
#define PRIMARY_RESET(name)                                                                      \
    CUresult name(CUdevice device)                                                               \
    {                                                                                            \
        hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;               \
        CUcontext context = card == NULL ? NULL : atomic_load(&card->primary);                   \
        if (context != NULL)                                                                     \
            hami_context_gone(context);                                                          \
        const CUresult result = BEHIND(name, device);                                            \
        hami_lane_context_gone();                                                                \
        if (result == CUDA_SUCCESS && context != NULL) {                                         \
            hami_memory_gone(context);                                                           \
            context_gone(card);                                                                  \
        }                                                                                        \
        all_due();                                                                               \
        return result;                                                                           \
    }
PRIMARY_RESET(cuDevicePrimaryCtxReset)
PRIMARY_RESET(cuDevicePrimaryCtxReset_v2)

/* ---- device heap ---- */

/* The heap is taken at the next module load or launch; the charge stands from now on. */
CUresult cuCtxSetLimit(int limit, size_t value)
{
    hami_card *card = hami_card_now();
    size_t now = 0;
    if (card == NULL || (limit != CU_LIMIT_MALLOC_HEAP_SIZE && limit != CU_LIMIT_PRINTF_FIFO_SIZE) ||
        USE(cuCtxGetLimit, &now, limit) != CUDA_SUCCESS || value <= now) {
        if (card != NULL)
            atomic_store(&card->reconcile_due, true);
        return BEHIND(cuCtxSetLimit, limit, value);
    }
    const int64_t more = hami_linear_bytes(value - now);
    if (!hami_take(card, HAMI_CONTEXT, more))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuCtxSetLimit, limit, value);
    if (result != CUDA_SUCCESS)
        hami_give(card, HAMI_CONTEXT, more);
    return result;
}

/* ---- modules and libraries ---- */

/* True when what was loaded fits. */
static bool loaded(CUresult result)
{
    hami_card *card = hami_card_now();
    if (card == NULL || result != CUDA_SUCCESS)
        return true;
    if (atomic_load(&card->limit) == HAMI_UNLIMITED) {
        atomic_store(&card->reconcile_due, true);
        return true;
    }
    return !hami_reconcile(card) || !overdrawn(card);
}

/* Libraries load late, at the first use of their module: near the limit at once, so that too much can still be undone. */
static bool library_loaded(CUresult result, CUlibrary library)
{
    hami_card *card = result == CUDA_SUCCESS ? hami_card_now() : NULL;
    CUmodule module;
    if (card == NULL || atomic_load(&card->limit) == HAMI_UNLIMITED)
        return loaded(result);
    const int64_t limit = atomic_load(&card->limit), left = limit - hami_used(card);
    if (left < NEAR_BYTES || left < limit / 4)
        BEHIND(cuLibraryGetModule, &module, library);
    return loaded(result);
}

static CUresult undone(void)
{
    hami_card *card = hami_card_now();
    if (card != NULL)
        hami_reconcile(card);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

#define LOAD(name, undo, fits, parameters, ...)            \
    CUresult name parameters                               \
    {                                                      \
        const CUresult result = BEHIND(name, __VA_ARGS__); \
        if (fits)                                          \
            return result;                                 \
        BEHIND(undo, *out);                                \
        return undone();                                   \
    }
LOAD(cuModuleLoad, cuModuleUnload, loaded(result), (CUmodule * out, const char *path), out, path)
LOAD(cuModuleLoadData, cuModuleUnload, loaded(result), (CUmodule * out, const void *image), out, image)
LOAD(cuModuleLoadFatBinary, cuModuleUnload, loaded(result), (CUmodule * out, const void *image), out, image)
LOAD(cuModuleLoadDataEx, cuModuleUnload, loaded(result),
     (CUmodule * out, const void *image, unsigned int count, int *options, void **values), out, image, count, options, values)
LOAD(cuLibraryLoadData, cuLibraryUnload, library_loaded(result, *out),
     (CUlibrary * out, const void *code, int *jit, void **jit_values, unsigned int jit_count, int *options, void **values,
      unsigned int count),
     out, code, jit, jit_values, jit_count, options, values, count)
LOAD(cuLibraryLoadFromFile, cuLibraryUnload, library_loaded(result, *out),
     (CUlibrary * out, const char *path, int *jit, void **jit_values, unsigned int jit_count, int *options, void **values,
      unsigned int count),
     out, path, jit, jit_values, jit_count, options, values, count)

/* Loads the library; what that overdraws cannot be undone here, but nothing more is had until it is unloaded. */
CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    const CUresult result = BEHIND(cuLibraryGetModule, out, library);
    return loaded(result) ? result : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuModuleUnload(CUmodule module)
{
    const CUresult result = BEHIND(cuModuleUnload, module);
    all_due();
    return result;
}

CUresult cuLibraryUnload(CUlibrary library)
{
    const CUresult result = BEHIND(cuLibraryUnload, library);
    all_due();
    return result;
}
