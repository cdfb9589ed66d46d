/*
 * Hooks of contexts and the device heap, which the driver takes without being asked for bytes.
 *
 * A context's size is known only afterwards, from NVML. So the first of a container is made alone, whatever its processes
 * do, and measured; for each other that much is reserved beforehand. If the first overdraws the slice, it is undone.
 */
#include "memory/local.h"
#include "pay/lane.h"
#include "process/log.h"
#include "process/state.h"

enum { MEASURE_NS = 5ll * 1000 * 1000 * 1000 }; /* a context is made in a tenth of a second; on a busy host in a few */

static int64_t unattributed(hami_card *card)
{
    return hami_state.ledger->slots[hami_state.slot].cards[card->ledger_index].held[HAMI_UNATTRIBUTED];
}

/* ---- contexts ---- */

typedef struct {
    hami_card *card;
    int64_t estimate, before, took; /* bytes */
    bool claimed;             /* nobody else makes one of unknown size */
} making;

static _Atomic int64_t *size_known(hami_card *card)
{
    return &hami_state.ledger->cards[card->ledger_index].context_bytes;
}

/* Success, or why there is to be none. */
static CUresult context_begin(making *m, CUdevice device)
{
    if (atomic_load(&hami_shut))
        return CUDA_ERROR_SYSTEM_NOT_READY;
    *m = (making){.card = atomic_load(&hami_active) ? hami_card_of(device) : NULL};
    if (m->card == NULL)
        return CUDA_SUCCESS;
    if (atomic_load(size_known(m->card)) == 0)
        m->claimed = hami_claim(m->card, MEASURE_NS);
    const int64_t known = atomic_load(size_known(m->card)); /* by now, perhaps */
    m->estimate = known > 0 ? known : 0;
    if (known != 0)
        hami_unclaim(m->card, &m->claimed);
    if (m->estimate > 0)
        return hami_take(m->card, HAMI_CONTEXT, m->estimate) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    hami_reconcile(m->card);
    m->before = unattributed(m->card);
    return CUDA_SUCCESS;
}

/* How large a context is that nobody knew the size of. False: larger than what is left. */
static bool measured(making *m)
{
    int64_t nobody = 0;
    if (!hami_reconcile(m->card)) {
        atomic_compare_exchange_strong(size_known(m->card), &nobody, -1); /* for the next not to wait for it either */
        return true;
    }
    m->took = unattributed(m->card) - m->before;
    if (m->took > 0) {
        atomic_store(size_known(m->card), m->took);
        hami_ledger_explain(hami_state.ledger, hami_state.slot, m->card->ledger_index, HAMI_CONTEXT, m->took);
    }
    if (!hami_overdrawn(m->card))
        return true;
    hami_log(HAMI_LOG_WARN, "a context of %lld bytes does not fit into the slice", (long long)m->took);
    return false;
}

/*
 * True when the context fits; otherwise the caller undoes it, and says so. One that was estimated is set right by the next
 * look at NVML, which so does not stand in the way of 64 processes starting.
 */
static bool context_end(making *m, CUresult result)
{
    if (m->card == NULL)
        return true;
    if (m->estimate > 0 && result == CUDA_SUCCESS)
        atomic_store(&m->card->reconcile_due, true);
    else if (m->estimate > 0)
        hami_give(m->card, HAMI_CONTEXT, m->estimate);
    else if (result == CUDA_SUCCESS && !measured(m))
        return false;
    hami_unclaim(m->card, &m->claimed);
    return true;
}

static CUresult context_undone(making *m)
{
    if (m->took > 0)
        hami_give(m->card, HAMI_CONTEXT, m->took);
    hami_reconcile(m->card);
    hami_unclaim(m->card, &m->claimed);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* A context has ended: give back what an estimate charged for it. The next look at NVML has the last word. */
static void context_gone(hami_card *card)
{
    const int64_t known = atomic_load(size_known(card));
    hami_give(card, HAMI_CONTEXT, known > 0 ? known : 0);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    unsigned int flags = 0;
    int active = 0;
    if (USE(cuDevicePrimaryCtxGetState, device, &flags, &active) != CUDA_SUCCESS || active)
        return BEHIND(cuDevicePrimaryCtxRetain, out, device); /* another reference takes nothing */
    making m;
    const CUresult refused = context_begin(&m, device);
    if (refused != CUDA_SUCCESS)
        return refused;
    const CUresult result = BEHIND(cuDevicePrimaryCtxRetain, out, device);
    if (context_end(&m, result)) {
        if (result == CUDA_SUCCESS && m.card != NULL)
            atomic_store(&m.card->primary, *out);
        if (result == CUDA_SUCCESS && m.card != NULL)
            hami_local_made(*out, m.card);
        return result;
    }
    BEHIND(cuDevicePrimaryCtxRelease_v2, device);
    return context_undone(&m);
}

#define CREATE(name, parameters, ...)                       \
    CUresult name parameters                                \
    {                                                       \
        making m;                                           \
        const CUresult refused = context_begin(&m, device); \
        if (refused != CUDA_SUCCESS)                        \
            return refused;                                 \
        const CUresult result = BEHIND(name, __VA_ARGS__);  \
        hami_lane_follow(NULL);                             \
        if (context_end(&m, result)) {                      \
            if (result == CUDA_SUCCESS && m.card != NULL)   \
                hami_local_made(*out, m.card);              \
            return result;                                  \
        }                                                   \
        BEHIND(cuCtxDestroy_v2, *out);                      \
        return context_undone(&m);                          \
    }
CREATE(cuCtxCreate, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuCtxCreate_v2, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuCtxCreate_v3, (CUcontext * out, void *affinity, int count, unsigned int flags, CUdevice device), out, affinity, count,
       flags, device)
CREATE(cuGLCtxCreate, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuGLCtxCreate_v2, (CUcontext * out, unsigned int flags, CUdevice device), out, flags, device)
CREATE(cuVDPAUCtxCreate, (CUcontext * out, unsigned int flags, CUdevice device, unsigned int vdp, void *lookup), out, flags, device,
       vdp, lookup)
CREATE(cuVDPAUCtxCreate_v2, (CUcontext * out, unsigned int flags, CUdevice device, unsigned int vdp, void *lookup), out, flags,
       device, vdp, lookup)
CREATE(cuCtxCreate_v4, (CUcontext * out, void *params, unsigned int flags, CUdevice device), out, params, flags, device)

/* ---- their end: what a context held goes with it ---- */

static void all_due(void)
{
    for (int i = 0; i < hami_state.card_count; i++)
        atomic_store(&hami_state.cards[i].reconcile_due, true);
}

/* It need not be the current one. */
static hami_card *card_of(CUcontext context)
{
    hami_card *card = hami_local_card_of(context);
    return card != NULL ? card : hami_card_now();
}

#define DESTROY(name)                                                  \
    CUresult name(CUcontext context)                                   \
    {                                                                  \
        if (!atomic_load(&hami_active))                                \
            return BEHIND(name, context);                              \
        hami_card *card = card_of(context);                            \
        hami_context_gone(context);                                    \
        const CUcontext held = hami_memory_leaves(context);            \
        const CUresult result = BEHIND(name, context);                 \
        hami_lane_context_gone();                                      \
        hami_memory_left(context, held, result == CUDA_SUCCESS);       \
        if (result == CUDA_SUCCESS && card != NULL)                    \
            context_gone(card);                                        \
        all_due();                                                     \
        return result;                                                 \
    }
DESTROY(cuCtxDestroy)
DESTROY(cuCtxDestroy_v2)

/* Only the last reference ends a primary context. `held`: what its memory was called meanwhile. */
static CUresult primary_end(CUresult result, hami_card *card, CUcontext context, CUcontext held)
{
    unsigned int flags = 0;
    int active = 1;
    CUcontext ours = context;
    const bool gone = USE(cuDevicePrimaryCtxGetState, card->device, &flags, &active) == CUDA_SUCCESS && !active &&
                      atomic_compare_exchange_strong(&card->primary, &ours, NULL);
    hami_memory_left(context, held, gone);
    if (gone && context != NULL) {
        hami_context_gone(context);
        hami_lane_context_gone();
        context_gone(card);
    }
    all_due();
    return result;
}

#define PRIMARY_END(name)                                                              \
    CUresult name(CUdevice device)                                                     \
    {                                                                                  \
        hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;     \
        if (card == NULL)                                                              \
            return BEHIND(name, device);                                               \
        const CUcontext context = atomic_load(&card->primary);                         \
        hami_context_leaves(context);                                                  \
        const CUcontext held = hami_memory_leaves(context);                            \
        return primary_end(BEHIND(name, device), card, context, held);                 \
    }
PRIMARY_END(cuDevicePrimaryCtxRelease)
PRIMARY_END(cuDevicePrimaryCtxRelease_v2)

/* A reset ends it whoever else holds it; another holder may bring it back at once, so drop first. */
#define PRIMARY_RESET(name)                                                                      \
    CUresult name(CUdevice device)                                                               \
    {                                                                                            \
        hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;               \
        if (card == NULL)                                                                        \
            return BEHIND(name, device);                                                         \
        CUcontext context = atomic_load(&card->primary);                                         \
        if (context != NULL)                                                                     \
            hami_context_gone(context);                                                          \
        const CUcontext held = hami_memory_leaves(context);                                      \
        const CUresult result = BEHIND(name, device);                                            \
        hami_lane_context_gone();                                                                \
        hami_memory_left(context, held, result == CUDA_SUCCESS);                                 \
        CUcontext ours = context; /* who releases it afterwards is not to give it back again */  \
        if (result == CUDA_SUCCESS && context != NULL && atomic_compare_exchange_strong(&card->primary, &ours, NULL)) \
            context_gone(card);                                                                  \
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
    hami_local_taken taken;
    if (card == NULL)
        return BEHIND(cuCtxSetLimit, limit, value);
    if (!hami_local_limit(card, limit, value, &taken))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuCtxSetLimit, limit, value);
    if (result != CUDA_SUCCESS)
        hami_local_refused(card, &taken);
    atomic_store(&card->reconcile_due, true);
    return result;
}
