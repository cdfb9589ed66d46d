/*
 * Hooks of what memory can be bound to: multicast objects, logical endpoints, and sparse arrays.
 *
 * What is bound stays on the card when its handle is released, so it is held by what it is bound to until it is unbound, or
 * until that is gone.
 */
#include <stdlib.h>
#include <string.h>

#include "memory/map.h"
#include "memory/vmm.h"

/* ---- bindings of a block, under its lock ---- */

static bool bind(hami_block *to, const uint64_t where[5], hami_block *behind)
{
    hami_binding *made = malloc(sizeof *made);
    if (made == NULL)
        return false;
    memcpy(made->where, where, sizeof made->where);
    made->behind = behind;
    made->next = to->bound;
    to->bound = made;
    behind->holders++;
    return true;
}

/* Those that `chosen` says are meant. */
static void unbind(hami_block *of, bool (*chosen)(const hami_binding *each, const uint64_t *where), const uint64_t *where)
{
    for (hami_binding **at = &of->bound; *at != NULL;) {
        hami_binding *each = *at;
        if (!chosen(each, where)) {
            at = &each->next;
            continue;
        }
        *at = each->next;
        hami_vmm_drop(each->behind, 1);
        free(each);
    }
}

/* ---- multicast objects ---- */

static bool within(const hami_binding *each, const uint64_t *range)
{
    return each->where[0] >= range[0] && each->where[0] < range[0] + range[1] && each->behind->card->device == (CUdevice)range[2];
}

CUresult cuMulticastCreate(CUmemGenericAllocationHandle *out, const void *prop)
{
    const CUresult result = BEHIND(cuMulticastCreate, out, prop);
    if (result == CUDA_SUCCESS && atomic_load(&hami_active) && hami_state.card_count > 0) {
        hami_vmm_lock();
        hami_vmm_add(*out, &hami_state.cards[0]);
        hami_vmm_unlock();
    }
    return result;
}

/* The object was made in this process, or came from another: then it is known from here on. */
static void bound(CUmemGenericAllocationHandle object, size_t offset, hami_block *behind)
{
    hami_block *to = behind == NULL ? NULL : hami_vmm_of_handle(object);
    if (behind != NULL && to == NULL) {
        hami_vmm_add(object, behind->card);
        to = hami_vmm_of_handle(object);
    }
    if (to != NULL)
        bind(to, (const uint64_t[5]){offset}, behind);
}

/* Binding may wait for other processes, so not under the lock: what is being bound is held meanwhile. */
static hami_block *bind_begin(hami_block *(*find)(unsigned long long), unsigned long long what)
{
    if (!atomic_load(&hami_active))
        return NULL;
    hami_vmm_lock();
    hami_block *behind = find(what);
    if (behind != NULL)
        behind->holders++;
    hami_vmm_unlock();
    return behind;
}

static CUresult bind_end(CUresult result, CUmemGenericAllocationHandle object, size_t offset, hami_block *behind)
{
    hami_vmm_lock();
    if (result == CUDA_SUCCESS)
        bound(object, offset, behind);
    if (behind != NULL)
        hami_vmm_drop(behind, 1);
    hami_vmm_unlock();
    return result;
}

#define BIND(name, find, what, parameters, ...)                              \
    CUresult name parameters                                                 \
    {                                                                        \
        if (!atomic_load(&hami_active))                                      \
            return BEHIND(name, __VA_ARGS__);                                \
        hami_block *behind = bind_begin(find, what);                         \
        return bind_end(BEHIND(name, __VA_ARGS__), object, offset, behind);  \
    }
BIND(cuMulticastBindMem, hami_vmm_of_handle, handle,
     (CUmemGenericAllocationHandle object, size_t offset, CUmemGenericAllocationHandle handle, size_t from, size_t bytes,
      unsigned long long flags),
     object, offset, handle, from, bytes, flags)
BIND(cuMulticastBindMem_v2, hami_vmm_of_handle, handle,
     (CUmemGenericAllocationHandle object, CUdevice device, size_t offset, CUmemGenericAllocationHandle handle, size_t from,
      size_t bytes, unsigned long long flags),
     object, device, offset, handle, from, bytes, flags)
BIND(cuMulticastBindAddr, hami_vmm_of_address, address,
     (CUmemGenericAllocationHandle object, size_t offset, CUdeviceptr address, size_t bytes, unsigned long long flags), object,
     offset, address, bytes, flags)
BIND(cuMulticastBindAddr_v2, hami_vmm_of_address, address,
     (CUmemGenericAllocationHandle object, CUdevice device, size_t offset, CUdeviceptr address, size_t bytes,
      unsigned long long flags),
     object, device, offset, address, bytes, flags)

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle object, CUdevice device, size_t offset, size_t bytes)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuMulticastUnbind, object, device, offset, bytes);
    hami_vmm_lock();
    const CUresult result = BEHIND(cuMulticastUnbind, object, device, offset, bytes);
    hami_block *of = result == CUDA_SUCCESS ? hami_vmm_of_handle(object) : NULL;
    if (of != NULL)
        unbind(of, within, (const uint64_t[3]){offset, bytes, (uint64_t)device});
    hami_vmm_unlock();
    return result;
}

/* ---- what is no memory itself ---- */

static hami_block *block_in(hami_entry entry)
{
    return (hami_block *)(uintptr_t)entry.bytes;
}

/* A block of no bytes, in place of it. */
static hami_block *stand_in(void)
{
    hami_block *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    made->holders = 1;
    made->owner = made->loan = -1;
    return made;
}

/* ---- logical endpoints, which have numbers ---- */

static hami_map endpoints = HAMI_MAP_INIT; /* number, plus 1 -> a stand-in */

static hami_block *endpoint(uint32_t id)
{
    hami_entry entry = {.key = (uint64_t)id + 1};
    if (hami_map_get(&endpoints, entry.key, false, &entry))
        return block_in(entry);
    hami_block *made = stand_in();
    entry.bytes = (int64_t)(uintptr_t)made;
    if (made != NULL && !hami_map_put(&endpoints, entry)) {
        free(made);
        made = NULL;
    }
    return made;
}

static CUresult endpoint_bound(CUresult result, uint32_t id, uint64_t offset, hami_block *behind)
{
    if (behind == NULL)
        return result;
    hami_vmm_lock();
    hami_block *to = result == CUDA_SUCCESS ? endpoint(id) : NULL;
    if (to != NULL)
        bind(to, (const uint64_t[5]){offset}, behind);
    hami_vmm_drop(behind, 1);
    hami_vmm_unlock();
    return result;
}

CUresult cuLogicalEndpointBindMem(uint32_t id, CUdevice device, uint64_t offset, CUmemGenericAllocationHandle handle, uint64_t from,
                                  uint64_t bytes, unsigned long long flags)
{
    hami_block *behind = bind_begin(hami_vmm_of_handle, handle);
    return endpoint_bound(BEHIND(cuLogicalEndpointBindMem, id, device, offset, handle, from, bytes, flags), id, offset, behind);
}

/* What a pool gave may be bound, too: that only NVML shows once the pool has it no more. */
CUresult cuLogicalEndpointBindAddr(uint32_t id, CUdevice device, uint64_t offset, void *address, uint64_t bytes, unsigned long long flags)
{
    hami_block *behind = bind_begin(hami_vmm_of_address, (uint64_t)(uintptr_t)address);
    return endpoint_bound(BEHIND(cuLogicalEndpointBindAddr, id, device, offset, address, bytes, flags), id, offset, behind);
}

CUresult cuLogicalEndpointUnbind(uint32_t id, CUdevice device, uint64_t offset, uint64_t bytes)
{
    hami_entry entry;
    if (!atomic_load(&hami_active))
        return BEHIND(cuLogicalEndpointUnbind, id, device, offset, bytes);
    hami_vmm_lock();
    const CUresult result = BEHIND(cuLogicalEndpointUnbind, id, device, offset, bytes);
    if (result == CUDA_SUCCESS && hami_map_get(&endpoints, (uint64_t)id + 1, false, &entry))
        unbind(block_in(entry), within, (const uint64_t[3]){offset, bytes, (uint64_t)device});
    hami_vmm_unlock();
    return result;
}

CUresult cuLogicalEndpointDestroy(uint32_t id)
{
    hami_entry entry;
    if (!atomic_load(&hami_active))
        return BEHIND(cuLogicalEndpointDestroy, id);
    hami_vmm_lock();
    const CUresult result = BEHIND(cuLogicalEndpointDestroy, id);
    if (result == CUDA_SUCCESS && hami_map_get(&endpoints, (uint64_t)id + 1, true, &entry))
        hami_vmm_drop(block_in(entry), 1);
    hami_vmm_unlock();
    return result;
}

/* ---- sparse arrays ---- */

static hami_map arrays = HAMI_MAP_INIT; /* array or mipmap -> a stand-in; tag: its context */

static bool same_part(const hami_binding *each, const uint64_t *where)
{
    return memcmp(each->where, where, sizeof each->where) == 0;
}

static void put_back(uint64_t array, hami_block *of)
{
    CUcontext context = NULL;
    USE(cuCtxGetCurrent, &context);
    hami_map_put(&arrays, (hami_entry){.key = array, .bytes = (int64_t)(uintptr_t)of, .tag = (uint64_t)(uintptr_t)context});
}

static hami_block *block_of(uint64_t array)
{
    hami_entry entry;
    if (hami_map_get(&arrays, array, false, &entry))
        return block_in(entry);
    hami_block *made = stand_in();
    if (made != NULL)
        put_back(array, made);
    return made;
}

/* What one part had before goes, whether nothing or something else comes. */
static void mapped(const CUarrayMapInfo *each)
{
    uint64_t where[5] = {(uint64_t)each->part_type};
    hami_block *array = block_of(each->array);
    hami_block *behind = each->operation == CU_MEM_OPERATION_TYPE_MAP ? hami_vmm_of_handle(each->handle) : NULL;
    if (array == NULL)
        return;
    memcpy(&where[1], each->part, sizeof each->part);
    hami_binding *before = array->bound;
    if (behind != NULL && bind(array, where, behind)) {
        hami_binding *fresh = array->bound;
        array->bound = before;
        unbind(array, same_part, where);
        fresh->next = array->bound;
        array->bound = fresh;
    } else if (behind == NULL) {
        unbind(array, same_part, where);
    }
}

static CUresult map_arrays(CUresult result, const CUarrayMapInfo *parts, unsigned int count)
{
    for (unsigned int i = 0; result == CUDA_SUCCESS && atomic_load(&hami_active) && i < count; i++)
        mapped(&parts[i]);
    return result;
}

#define MAP_ARRAYS(name)                                                                        \
    CUresult name(CUarrayMapInfo *parts, unsigned int count, CUstream stream)                   \
    {                                                                                           \
        if (!atomic_load(&hami_active))                                                         \
            return BEHIND(name, parts, count, stream);                                          \
        hami_vmm_lock();                                                                        \
        const CUresult result = map_arrays(BEHIND(name, parts, count, stream), parts, count);   \
        hami_vmm_unlock();                                                                      \
        return result;                                                                          \
    }
MAP_ARRAYS(cuMemMapArrayAsync)
MAP_ARRAYS(cuMemMapArrayAsync_ptsz)

hami_block *hami_array_leaves(uint64_t array)
{
    hami_entry entry;
    hami_vmm_lock();
    const bool there = hami_map_get(&arrays, array, true, &entry);
    hami_vmm_unlock();
    return there ? block_in(entry) : NULL;
}

CUresult hami_array_left(uint64_t array, hami_block *parts, CUresult result)
{
    if (parts == NULL)
        return result;
    hami_vmm_lock();
    if (result == CUDA_SUCCESS)
        hami_vmm_drop(parts, 1);
    else
        put_back(array, parts);
    hami_vmm_unlock();
    return result;
}

void hami_arrays_rename(CUcontext from, CUcontext to)
{
    hami_map_retag(&arrays, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
}

void hami_arrays_gone(CUcontext context)
{
    hami_entry entry;
    hami_vmm_lock();
    while (hami_map_take_tag(&arrays, (uint64_t)(uintptr_t)context, &entry))
        hami_vmm_drop(block_in(entry), 1);
    hami_vmm_unlock();
}
