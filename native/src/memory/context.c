/*
 * Hooks of contexts and the device heap, which the driver takes without being asked for bytes.
 *
 * A context's size is known only afterwards, from NVML. So the first of a container is made alone, whatever its processes
 * do, and measured; for each other that much is reserved beforehand. If the first overdraws the slice, it is undone. Where there is no NVML it is charged
 * what it takes at most.
 */
#include "memory/context.h"

#include "memory/local.h"
#include "memory/map.h"
#include "memory/unseen.h"
#include "pay/lane.h"
#include "price/burst.h"
#include "process/log.h"
#include "process/state.h"

enum { MEASURE_NS = 5ll * 1000 * 1000 * 1000 }; /* a context is made in a tenth of a second; on a busy host in a few */

static int64_t unattributed(hami_card *card)
{
    return hami_state.ledger->slots[hami_state.slot].cards[card->ledger_index].held[HAMI_UNATTRIBUTED];
}

/* ---- contexts ---- */

static _Atomic int64_t *size_known(hami_card *card)
{
    return &hami_state.ledger->cards[card->ledger_index].context_bytes;
}

CUresult hami_making_begin(hami_making *m, CUdevice device)
{
    if (atomic_load(&hami_shut))
        return CUDA_ERROR_SYSTEM_NOT_READY;
    *m = (hami_making){.card = atomic_load(&hami_active) ? hami_card_of(device) : NULL};
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
static bool measured(hami_making *m)
{
    int64_t nobody = 0;
    const bool shown = hami_reconcile(m->card);
    if (!shown && !hami_unseen_here(m->card)) {
        atomic_compare_exchange_strong(size_known(m->card), &nobody, -1); /* for the next not to wait for it either */
        return true;
    }
    if (!shown) {
        m->took = hami_unseen_context(m->card, m->made);
        atomic_store(size_known(m->card), m->took);
        hami_move(m->card, HAMI_CONTEXT, 0, m->took);
    } else if ((m->took = unattributed(m->card) - m->before) > 0) {
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
bool hami_making_end(hami_making *m, CUresult result)
{
    if (m->card == NULL)
        return true;
    if (m->estimate > 0 && result == CUDA_SUCCESS)
        atomic_store(&m->card->reconcile_due, true);
    else if (m->estimate > 0)
        hami_give(m->card, HAMI_CONTEXT, m->estimate);
    else if (result == CUDA_SUCCESS && !measured(m))
        return false;
    if (m->estimate > 0)
        hami_asked(m->card);
    hami_unclaim(m->card, &m->claimed);
    return true;
}

CUresult hami_making_undone(hami_making *m)
{
    if (m->took > 0)
        hami_give(m->card, HAMI_CONTEXT, m->took);
    hami_reconcile(m->card);
    hami_unclaim(m->card, &m->claimed);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

void hami_making_back(hami_card *card)
{
    const int64_t known = atomic_load(size_known(card));
    hami_give(card, HAMI_CONTEXT, known > 0 ? known : 0);
}

#define CREATE(name, parameters, ...)                           \
    CUresult name parameters                                    \
    {                                                           \
        hami_making m;                                          \
        const CUresult refused = hami_making_begin(&m, device); \
        if (refused != CUDA_SUCCESS)                            \
            return refused;                                     \
        const CUresult result = BEHIND(name, __VA_ARGS__);      \
        hami_lane_follow(NULL);                                 \
        m.made = result == CUDA_SUCCESS ? *out : NULL;          \
        if (hami_making_end(&m, result)) {                      \
            if (result == CUDA_SUCCESS && m.card != NULL)       \
                hami_local_made(*out, m.card);                  \
            return result;                                      \
        }                                                       \
        BEHIND(cuCtxDestroy_v2, *out);                          \
        return hami_making_undone(&m);                          \
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

void hami_all_due(void)
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

static hami_map attached = HAMI_MAP_INIT; /* context -> further references, as bytes */
static pthread_mutex_t attaching = PTHREAD_MUTEX_INITIALIZER;

/* What was noted before a context ends. */
typedef struct {
    CUcontext context, held; /* `held`: what its memory is called meanwhile */
    hami_card *card;
    hami_entry references; /* in `attached` */
    hami_leave leave;
} ending;

static ending end_of(CUcontext context)
{
    ending e = {.context = context, .card = card_of(context)};
    if (e.card != NULL)
        hami_asks(e.card);
    hami_burst_context_gone(context);
    e.held = hami_memory_leaves(context);
    hami_map_get(&attached, (uint64_t)(uintptr_t)context, true, &e.references);
    e.leave = hami_context_leaves(context);
    return e;
}

/* It has ended where this is a success, with whatever it held. */
static CUresult ended(CUresult result, const ending *e)
{
    const bool gone = result == CUDA_SUCCESS;
    hami_context_left(&e->leave, gone);
    hami_lane_context_gone();
    hami_memory_left(e->context, e->held, gone);
    if (!gone)
        hami_map_put(&attached, e->references); /* nothing where there were none: the key is 0 */
    if (gone && e->card != NULL)
        hami_making_back(e->card);
    if (e->card != NULL)
        hami_asked(e->card);
    hami_all_due();
    return result;
}

#define DESTROY(name)                                \
    do {                                             \
        if (!atomic_load(&hami_active))              \
            return BEHIND(name, context);            \
        const ending e = end_of(context);            \
        return ended(BEHIND(name, context), &e);     \
    } while (0)

CUresult cuCtxDestroy(CUcontext context)
{
    DESTROY(cuCtxDestroy);
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    DESTROY(cuCtxDestroy_v2);
}

/* ---- of CUDA 3: references to a context, of which its maker has the first ---- */

/* False: there is none to take. */
static bool attach(CUcontext context, int more)
{
    hami_entry entry = {.key = (uint64_t)(uintptr_t)context};
    pthread_mutex_lock(&attaching);
    const bool there = hami_map_get(&attached, entry.key, true, &entry) || more > 0;
    entry.bytes += there ? more : 0;
    if (entry.bytes > 0)
        hami_map_put(&attached, entry);
    pthread_mutex_unlock(&attaching);
    return there;
}

CUresult cuCtxAttach(CUcontext *out, unsigned int flags)
{
    const CUresult result = BEHIND(cuCtxAttach, out, flags);
    if (result == CUDA_SUCCESS && atomic_load(&hami_active))
        attach(*out, 1);
    hami_lane_follow(NULL);
    return result;
}

CUresult cuCtxDetach(CUcontext context)
{
    if (!atomic_load(&hami_active) || !attach(context, -1))
        DESTROY(cuCtxDetach);
    const CUresult result = BEHIND(cuCtxDetach, context);
    if (result != CUDA_SUCCESS)
        attach(context, 1);
    hami_lane_follow(NULL);
    return result;
}

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
