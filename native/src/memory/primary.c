/*
 * Hooks of primary contexts, of which a card has one in a process, and of green ones: those are parts of it, make it where there is none, and hold it.
 */
#include "memory/context.h"
#include "memory/local.h"
#include "memory/map.h"
#include "pay/lane.h"
#include "prim/door.h"
#include "process/state.h"

/*
 * A card's: what the driver does to its primary context, and what is noted of that, is one step. Else one thread's last release and another's first
 * retain end or begin in the notes what they did not on the card.
 */
static hami_door doors[HAMI_MAX_CARDS];

/* NULL: the library is not active, or the card is none of ours; nothing was entered. Nor by a handler that has interrupted this very thread in there. */
static hami_door *enter(const hami_card *card)
{
    hami_door *door = card == NULL ? NULL : &doors[card - hami_state.cards];
    return door != NULL && hami_door_enter(door) ? door : NULL;
}

static CUresult left(hami_door *door, CUresult result)
{
    if (door != NULL)
        hami_door_leave(door);
    return result;
}

static hami_card *card_of(CUdevice device)
{
    return atomic_load(&hami_active) ? hami_card_of(device) : NULL;
}

/* True: another reference to it takes nothing, or the driver does not say, and will say why. */
static bool nothing_to_make(CUdevice device)
{
    unsigned int flags = 0;
    int active = 0;
    const CUresult result = USE(cuDevicePrimaryCtxGetState, device, &flags, &active);
    return result != CUDA_SUCCESS || (active && !atomic_load(&hami_shut));
}

static void primary_made(const hami_making *m, CUcontext context)
{
    if (m->card == NULL || context == NULL)
        return;
    atomic_store(&m->card->primary, context);
    hami_local_made(context, m->card);
}

static CUresult retain(CUcontext *out, CUdevice device)
{
    hami_making m;
    if (nothing_to_make(device))
        return BEHIND(cuDevicePrimaryCtxRetain, out, device);
    const CUresult refused = hami_making_begin(&m, device);
    if (refused != CUDA_SUCCESS)
        return refused;
    const CUresult result = BEHIND(cuDevicePrimaryCtxRetain, out, device);
    m.made = result == CUDA_SUCCESS ? *out : NULL;
    if (hami_making_end(&m, result)) {
        primary_made(&m, result == CUDA_SUCCESS ? *out : NULL);
        return result;
    }
    BEHIND(cuDevicePrimaryCtxRelease_v2, device);
    return hami_making_undone(&m);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    hami_door *door = enter(card_of(device));
    return left(door, retain(out, device));
}

/* What was noted before a reference to it is given back, of which only the last ends it. */
typedef struct {
    hami_card *card;
    CUcontext context, held; /* NULL: unknown; what its memory is called meanwhile */
    hami_leave leave;
} ending;

static ending end_of(hami_card *card)
{
    ending e = {.card = card, .context = atomic_load(&card->primary)};
    hami_asks(card);
    e.held = hami_memory_leaves(e.context);
    e.leave = hami_context_leaves(e.context);
    return e;
}

static CUresult ended(CUresult result, const ending *e, bool gone)
{
    hami_context_left(&e->leave, gone);
    hami_memory_left(e->context, e->held, gone);
    if (gone)
        hami_lane_context_gone();
    if (gone && e->context != NULL) {
        atomic_store(&e->card->primary, NULL);
        hami_making_back(e->card);
    }
    hami_asked(e->card);
    hami_all_due();
    return result;
}

static bool is_gone(const ending *e)
{
    unsigned int flags = 0;
    int active = 1;
    return USE(cuDevicePrimaryCtxGetState, e->card->device, &flags, &active) == CUDA_SUCCESS && !active;
}

#define PRIMARY_END(name, gone)                       \
    CUresult name(CUdevice device)                    \
    {                                                 \
        hami_card *card = card_of(device);            \
        if (card == NULL)                             \
            return BEHIND(name, device);              \
        hami_door *door = enter(card);                \
        const ending e = end_of(card);                \
        const CUresult result = BEHIND(name, device); \
        return left(door, ended(result, &e, gone));   \
    }
PRIMARY_END(cuDevicePrimaryCtxRelease, is_gone(&e))
PRIMARY_END(cuDevicePrimaryCtxRelease_v2, is_gone(&e))

/* A reset ends it whoever else holds it, who may bring it back at once. */
PRIMARY_END(cuDevicePrimaryCtxReset, result == CUDA_SUCCESS)
PRIMARY_END(cuDevicePrimaryCtxReset_v2, result == CUDA_SUCCESS)

/* ---- green ones ---- */

static hami_map greens = HAMI_MAP_INIT; /* green context -> its card */

static CUresult green_made(CUresult result, const CUgreenCtx *out, CUdevice device)
{
    hami_card *card = result == CUDA_SUCCESS ? card_of(device) : NULL;
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

static CUresult create_green(CUgreenCtx *out, void *desc, CUdevice device, unsigned int flags)
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

CUresult cuGreenCtxCreate(CUgreenCtx *out, void *desc, CUdevice device, unsigned int flags)
{
    hami_door *door = enter(card_of(device));
    return left(door, create_green(out, desc, device, flags));
}

/* Its own context, by which a program may have measured in it. */
static CUcontext inside(CUgreenCtx green, CUcontext primary)
{
    CUcontext inner = NULL;
    return USE(cuCtxFromGreenCtx, &inner, green) == CUDA_SUCCESS && inner != primary ? inner : NULL;
}

/* What was taken in it is the primary context's, and goes with that: where this was the last to hold it, now. */
CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    hami_entry entry;
    if (!atomic_load(&hami_active) || !hami_map_get(&greens, (uint64_t)(uintptr_t)green, true, &entry))
        return BEHIND(cuGreenCtxDestroy, green);
    hami_card *card = &hami_state.cards[entry.card];
    hami_door *door = enter(card);
    const CUcontext primary = atomic_load(&card->primary), inner = inside(green, primary);
    if (inner != NULL)
        hami_memory_rename(inner, primary);
    const hami_leave leave = hami_context_leaves(inner);
    const ending e = end_of(card);
    const CUresult result = BEHIND(cuGreenCtxDestroy, green);
    if (result != CUDA_SUCCESS)
        hami_map_put(&greens, entry);
    hami_lane_context_gone();
    ended(result, &e, is_gone(&e));
    hami_context_left(&leave, result == CUDA_SUCCESS);
    return left(door, result);
}
