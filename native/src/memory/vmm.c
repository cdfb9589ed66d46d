/*
 * Hooks of virtual memory management.
 *
 * Physical memory lives as long as anything holds it: its handle (and every retain of it), a mapping, a multicast object or
 * sparse array that it is bound to (bound.c), or a descriptor (handed.c). So the charge is counted by holders, and goes when
 * the last one goes; releasing a handle that is still mapped frees nothing.
 */
#include "memory/vmm.h"

#include <stdlib.h>

#include "memory/handed.h"
#include "memory/map.h"
#include "process/state.h"

typedef hami_block block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the holders, and both maps together */
static hami_map handles = HAMI_MAP_INIT;  /* handle -> block; bytes: references through this handle */
static hami_map mappings = HAMI_MAP_INIT; /* address -> block */

void hami_vmm_lock(void)
{
    pthread_mutex_lock(&lock);
}

void hami_vmm_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void hami_vmm_end(block *b)
{
    while (b->bound != NULL) {
        hami_binding *gone = b->bound;
        b->bound = gone->next;
        hami_vmm_drop(gone->behind, 1);
        free(gone);
    }
    if (!hami_handed_ends(b) && b->bytes > 0)
        hami_give(b->card, b->kind, b->bytes);
    free(b);
}

void hami_vmm_drop(block *b, int64_t count)
{
    b->holders -= count;
    if (b->holders <= 0 && !hami_handed_keeps(b))
        hami_vmm_end(b);
}

static block *block_of(const hami_entry *entry)
{
    return (block *)(uintptr_t)entry->tag;
}

block *hami_vmm_of_handle(CUmemGenericAllocationHandle handle)
{
    hami_entry entry;
    return hami_map_get(&handles, handle, false, &entry) ? block_of(&entry) : NULL;
}

typedef struct {
    CUdeviceptr address;
    block *found;
} search;

static void look_for(hami_entry *entry, void *argument)
{
    search *s = argument;
    if (entry->key <= s->address && s->address < entry->key + (uint64_t)entry->bytes)
        s->found = block_of(entry);
}

/* By any address in it; most ask by the first. */
block *hami_vmm_of_address(CUdeviceptr address)
{
    hami_entry entry;
    search s = {.address = address};
    if (hami_map_get(&mappings, address, false, &entry))
        return block_of(&entry);
    hami_map_each(&mappings, look_for, &s);
    return s.found;
}

typedef struct {
    void (*see)(block *each, void *argument);
    void *argument;
} viewer;

static void show(hami_entry *entry, void *to)
{
    const viewer *v = to;
    v->see(block_of(entry), v->argument);
}

void hami_vmm_each(void (*see)(block *each, void *argument), void *argument)
{
    viewer v = {see, argument};
    hami_map_each(&handles, show, &v);
    hami_map_each(&mappings, show, &v);
}

void hami_vmm_hold(CUmemGenericAllocationHandle handle, block *b)
{
    hami_entry entry;
    if (!hami_map_get(&handles, handle, false, &entry))
        entry = (hami_entry){.key = handle, .tag = (uint64_t)(uintptr_t)b};
    entry.bytes++;
    block_of(&entry)->holders++;
    hami_map_put(&handles, entry);
}

void hami_vmm_add(CUmemGenericAllocationHandle handle, hami_card *card)
{
    block *b = malloc(sizeof *b);
    if (b == NULL)
        return;
    *b = (block){.card = card, .kind = HAMI_VMM, .holders = 1, .owner = -1, .loan = -1};
    hami_map_put(&handles, (hami_entry){.key = handle, .bytes = 1, .tag = (uint64_t)(uintptr_t)b});
}

/* The one that the properties name; the current context does not matter, there may be none. A locality domain's id holds the device in its low byte. */
hami_card *hami_vmm_card(const CUmemAllocationProp *prop)
{
    if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        return hami_card_of(prop->location.id);
    return prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN ? hami_card_of(prop->location.id & 0xff) : NULL;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *prop, unsigned long long flags)
{
    if (atomic_load(&hami_shut))
        return CUDA_ERROR_SYSTEM_NOT_READY; /* it needs no context */
    hami_card *card = atomic_load(&hami_active) && out != NULL && prop != NULL ? hami_vmm_card(prop) : NULL;
    if (card == NULL)
        return BEHIND(cuMemCreate, out, bytes, prop, flags);
    const int64_t charge = bytes > (size_t)1 << 60 ? INT64_MAX : (int64_t)bytes;
    block *b = malloc(sizeof *b);
    if (b == NULL || !hami_take(card, HAMI_VMM, charge)) {
        free(b);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *b = (block){.bytes = charge, .card = card, .kind = HAMI_VMM, .holders = 1, .owner = -1, .loan = -1};
    const CUresult result = BEHIND(cuMemCreate, out, bytes, prop, flags);
    pthread_mutex_lock(&lock);
    if (result != CUDA_SUCCESS)
        hami_vmm_drop(b, 1);
    else
        hami_map_put(&handles, (hami_entry){.key = *out, .bytes = 1, .tag = (uint64_t)(uintptr_t)b});
    pthread_mutex_unlock(&lock);
    hami_asked(card);
    return result;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    IN_CHILD(cuMemRelease, handle);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const bool ours = hami_map_get(&handles, handle, true, &entry);
    const CUresult result = BEHIND(cuMemRelease, handle);
    if (ours && result == CUDA_SUCCESS) {
        if (--entry.bytes > 0)
            hami_map_put(&handles, entry);
        hami_vmm_drop(block_of(&entry), 1);
    } else if (ours) {
        hami_map_put(&handles, entry);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *address)
{
    IN_CHILD(cuMemRetainAllocationHandle, out, address);
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemRetainAllocationHandle, out, address);
    block *b = result == CUDA_SUCCESS ? hami_vmm_of_address((uint64_t)(uintptr_t)address) : NULL;
    if (b != NULL)
        hami_vmm_hold(*out, b);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    IN_CHILD(cuMemMap, address, bytes, offset, handle, flags);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemMap, address, bytes, offset, handle, flags);
    if (result == CUDA_SUCCESS && hami_map_get(&handles, handle, false, &entry)) {
        block_of(&entry)->holders++;
        hami_handed_mapped(block_of(&entry), (int64_t)(offset + bytes));
        hami_map_put(&mappings, (hami_entry){.key = address, .bytes = (int64_t)bytes, .tag = entry.tag});
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* One call may undo several mappings, of which the first need not be ours. */
CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    IN_CHILD(cuMemUnmap, address, bytes);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemUnmap, address, bytes);
    if (result == CUDA_SUCCESS) {
        const bool first = hami_map_get(&mappings, address, true, &entry), more = !first || (uint64_t)entry.bytes < bytes;
        if (first)
            hami_vmm_drop(block_of(&entry), 1);
        while (more && hami_map_take_range(&mappings, address, address + bytes, &entry))
            hami_vmm_drop(block_of(&entry), 1);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
