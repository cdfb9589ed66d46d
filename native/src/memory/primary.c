/*
 * Hooks of primary contexts, of which a card has one in a process, and of green ones: those are parts of it, make it where there is none, and hold it.
 */
#include "memory/context.h"
#include "memory/local.h"
#include "memory/map.h"
#include "pay/lane.h"

/* True: another reference to it takes nothing, or the driver does not say, and will say why. */
static bool nothing_to_make(CUdevice device)
{
    unsigned int flags = 0;
    int active = 0;
    const CUresult result = USE(cuDevicePrimaryCtxGetState, device, &flags, &active);
    return result != CUDA_SUCCESS || (active && !atomic_load(&hami_shut));
}

/* It is there. Of several threads that found none at the same time one has made it, and it is charged once. */
static void primary_made(const hami_making *m, CUcontext context)
{
    CUcontext nobodys = NULL;
    if (m->card == NULL || context == NULL)
        return;
    if (atomic_compare_exchange_strong(&m->card->primary, &nobodys, context))
        hami_local_made(context, m->card);
    else
        hami_give(m->card, HAMI_CONTEXT, m->estimate);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    hami_making m;
    if (nothing_to_make(device))
        return BEHIND(cuDevicePrimaryCtxRetain, out, device);
    const CUresult refused = hami_making_begin(&m, device);
    if (refused != CUDA_SUCCESS)
        return refused;
    const CUresult result = BEHIND(cuDevicePrimaryCtxRetain, out, device);
    if (hami_making_end(&m, result)) {
        primary_made(&m, result == CUDA_SUCCESS ? *out : NULL);
        return result;
    }
    BEHIND(cuDevicePrimaryCtxRelease_v2, device);
    return hami_making_undone(&m);
}

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
        hami_making_back(card);
    }
    hami_all_due();
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
            hami_making_back(card);                                                                  \
        hami_all_due();                                                                               \
        return result;                                                                           \
    }
PRIMARY_RESET(cuDevicePrimaryCtxReset)
PRIMARY_RESET(cuDevicePrimaryCtxReset_v2)

/* ---- green ones ---- */

static hami_map greens = HAMI_MAP_INIT; /* green context -> its card */

static CUresult green_made(CUresult result, const CUgreenCtx *out, CUdevice device)
{
    hami_card *card = result == CUDA_SUCCESS && atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    if (card != NULL)
        hami_map_put(&greens, (hami_entry){.key = (uint64_t)(uintptr_t)*out, .card = (int16_t)(card - hami_state.cards)});
    return result;
}

/* The driver tells nobody the primary context but who asks for a reference. */
static CUcontext primary_of(CUdevice device)
{
    CUcontext context = NULL;
    if (BEHIND(cuDevicePrimaryCtxRetain, &context, device) != CUDA_SUCCESS)
        return NULL;
    BEHIND(cuDevicePrimaryCtxRelease_v2, device);
    return context;
}

CUresult cuGreenCtxCreate(CUgreenCtx *out, void *desc, CUdevice device, unsigned int flags)
{
    hami_making m;
    if (nothing_to_make(device))
        return green_made(BEHIND(cuGreenCtxCreate, out, desc, device, flags), out, device);
    const CUresult refused = hami_making_begin(&m, device);
    if (refused != CUDA_SUCCESS)
        return refused;
    const CUresult result = BEHIND(cuGreenCtxCreate, out, desc, device, flags);
    if (hami_making_end(&m, result)) {
        primary_made(&m, result == CUDA_SUCCESS ? primary_of(device) : NULL);
        return green_made(result, out, device);
    }
    BEHIND(cuGreenCtxDestroy, *out);
    return hami_making_undone(&m);
}

/* What was taken in it is the primary context's, and goes with that: where this was the last to hold it, now. */
CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    hami_entry entry;
    CUcontext inner = NULL;
    if (!atomic_load(&hami_active) || !hami_map_get(&greens, (uint64_t)(uintptr_t)green, true, &entry))
        return BEHIND(cuGreenCtxDestroy, green);
    hami_card *card = &hami_state.cards[entry.card];
    const CUcontext context = atomic_load(&card->primary);
    if (USE(cuCtxFromGreenCtx, &inner, green) == CUDA_SUCCESS && inner != NULL && inner != context) {
        hami_context_gone(inner);
        hami_memory_rename(inner, context);
    }
    hami_context_leaves(context);
    const CUcontext held = hami_memory_leaves(context);
    const CUresult result = primary_end(BEHIND(cuGreenCtxDestroy, green), card, context, held);
    if (result != CUDA_SUCCESS)
        hami_map_put(&greens, entry);
    hami_lane_context_gone();
    return result;
}
