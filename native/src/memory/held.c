/* See held.h; and what happens to it when a context ends. */
#include "memory/held.h"

#include "memory/graph.h"
#include "memory/handed.h"
#include "memory/later.h"
#include "memory/local.h"
#include "memory/vmm.h"

hami_map hami_buffers = HAMI_MAP_INIT;
hami_map hami_arrays = HAMI_MAP_INIT;

void hami_remember(hami_map *map, uint64_t key, hami_card *card, hami_kind kind, int64_t bytes)
{
    CUcontext context = NULL; /* what a context holds goes with it */
    USE(cuCtxGetCurrent, &context);
    hami_map_put(map, (hami_entry){.key = key,
                                   .bytes = bytes,
                                   .tag = (uint64_t)(uintptr_t)context,
                                   .card = (int16_t)(card - hami_state.cards),
                                   .kind = (int16_t)kind});
}

void hami_forget(hami_entry entry, uint64_t offer)
{
    hami_card *card = &hami_state.cards[entry.card];
    if (entry.spare != 0 && hami_handed_leaves(card, (hami_kind)entry.kind, entry.bytes, entry.spare))
        return;
    if (!hami_offer_end(offer, card, (hami_kind)entry.kind, entry.bytes))
        hami_give(card, (hami_kind)entry.kind, entry.bytes);
}

typedef struct {
    CUdeviceptr address;
    int fresh, found;
} marking;

static void mark_if(hami_entry *entry, void *argument)
{
    marking *m = argument;
    if (m->address < entry->key || m->address >= entry->key + (uint64_t)entry->bytes)
        return;
    entry->spare = entry->spare != 0 ? entry->spare : m->fresh; /* all descriptors of one buffer have one mark */
    m->found = entry->spare;
}

int hami_buffer_mark(CUdeviceptr address, int fresh)
{
    marking m = {.address = address, .fresh = fresh};
    hami_map_each(&hami_buffers, mark_if, &m);
    return m.found;
}

void hami_memory_rename(CUcontext from, CUcontext to)
{
    hami_map_retag(&hami_buffers, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
    hami_map_retag(&hami_arrays, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
    hami_later_rename(from, to);
    hami_arrays_rename(from, to);
    hami_modules_rename(from, to);
    hami_local_rename(from, to);
}

CUcontext hami_memory_leaves(CUcontext context)
{
    static _Atomic uintptr_t last = 1; /* odd, as no handle is */
    const CUcontext name = (CUcontext)atomic_fetch_add(&last, 2);
    if (context != NULL)
        hami_memory_rename(context, name);
    return name;
}

static void all_gone(CUcontext context)
{
    hami_entry entry;
    while (hami_map_take_tag(&hami_buffers, (uint64_t)(uintptr_t)context, &entry))
        hami_forget(entry, hami_offer_leaves(entry.key));
    while (hami_map_take_tag(&hami_arrays, (uint64_t)(uintptr_t)context, &entry))
        hami_forget(entry, 0);
    hami_later_gone(context);
    hami_arrays_gone(context);
    hami_modules_gone(context);
    hami_local_gone(context);
    hami_graph_context_gone();
}

void hami_memory_left(CUcontext context, CUcontext name, bool gone)
{
    if (context == NULL)
        return;
    if (gone)
        all_gone(name);
    else
        hami_memory_rename(name, context);
}
