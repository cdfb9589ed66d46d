/* Every way to take memory of a card. See fake.h. */
#include <stdlib.h>
#include <string.h>

#include "fake.h"

#define MIB ((int64_t)1 << 20)
enum { ALLOCS = 1 << 16, POOL_CHUNK_MIB = 32 };

static struct alloc allocs[ALLOCS]; /* open addressing by key */
static uint64_t next_address = 0x7f0000000000u;
static int64_t small_bytes[SIM_LIVE_CARDS], small_held[SIM_LIVE_CARDS]; /* under 1 MiB: from slabs of 2 MiB */

typedef struct CUmemPoolHandle_st {
    int card;
    int64_t reserved, used;
} fake_pool;
static fake_pool default_pools[SIM_LIVE_CARDS];
static int64_t graph_reserved[SIM_LIVE_CARDS], graph_used[SIM_LIVE_CARDS];

static struct alloc *find(uint64_t key)
{
    uint64_t at = (key * 0x9e3779b97f4a7c15u) >> 48;
    for (int i = 0; i < ALLOCS && allocs[at].key != 0 && allocs[at].key != key; i++)
        at = (at + 1) % ALLOCS;
    return allocs[at].key == key ? &allocs[at] : NULL;
}

static struct alloc *add(struct alloc entry)
{
    uint64_t at = (entry.key * 0x9e3779b97f4a7c15u) >> 48;
    while (allocs[at].key != 0 && allocs[at].key != entry.key && allocs[at].kind != 0)
        at = (at + 1) % ALLOCS;
    allocs[at] = entry;
    return &allocs[at];
}

/* Keeps its key, so that probing goes on past it; addresses are never given twice. */
static void drop(struct alloc *entry)
{
    entry->kind = 0;
    size_t at = (size_t)(entry - allocs);
    while (allocs[at].key != 0 && allocs[at].kind == 0 && allocs[(at + 1) % ALLOCS].key == 0) {
        allocs[at].key = 0; /* nothing behind it: the chain may end here */
        at = (at + ALLOCS - 1) % ALLOCS;
    }
}

static struct alloc *live(uint64_t key, int kind)
{
    struct alloc *entry = find(key);
    return entry != NULL && entry->kind == kind ? entry : NULL;
}

CUdeviceptr fake_address(int64_t bytes)
{
    const CUdeviceptr address = next_address;
    next_address += (uint64_t)((bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB)) + (uint64_t)(2 * MIB);
    return address;
}

bool fake_on_card(CUdeviceptr address)
{
    return address >= 0x7f0000000000u && address < next_address;
}

static bool take_linear(int card, int64_t bytes)
{
    if (bytes > MIB)
        return fake_take(card, (bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB));
    const int64_t now = small_bytes[card] + (bytes + 511) / 512 * 512;
    const int64_t slabs = (now + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    if (slabs > small_held[card] && !fake_take(card, slabs - small_held[card]))
        return false;
    small_held[card] = slabs > small_held[card] ? slabs : small_held[card];
    small_bytes[card] = now;
    return true;
}

static void give_linear(int card, int64_t bytes)
{
    if (bytes > MIB) {
        fake_take(card, -((bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB)));
        return;
    }
    small_bytes[card] -= (bytes + 511) / 512 * 512;
    if (small_bytes[card] == 0) {
        fake_take(card, -small_held[card]);
        small_held[card] = 0;
    }
}

#define ENTER                                  \
    fake_context *context = fake_current();    \
    if (!fake_ready())                         \
        return CUDA_ERROR_NOT_INITIALIZED;     \
    if (context == NULL)                       \
        return CUDA_ERROR_INVALID_CONTEXT;     \
    pthread_mutex_lock(&fake_lock)

static CUresult leave(CUresult result)
{
    pthread_mutex_unlock(&fake_lock);
    return result;
}

/* ---- linear ---- */

static CUresult linear(CUdeviceptr *out, size_t bytes, int kind, int card)
{
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > (size_t)1 << 50 || !take_linear(card, (int64_t)bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = fake_address((int64_t)bytes);
    add((struct alloc){.key = *out, .bytes = (int64_t)bytes, .card = card, .kind = kind});
    return CUDA_SUCCESS;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    ENTER;
    return leave(linear(out, bytes, A_LINEAR, context->device));
}

API CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned int flags)
{
    (void)flags;
    ENTER;
    return leave(linear(out, bytes, A_MANAGED, context->device));
}

API CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width_bytes, size_t height, unsigned int element_bytes)
{
    (void)element_bytes;
    ENTER;
    *pitch = (width_bytes + 511) / 512 * 512;
    return leave(linear(out, *pitch * height, A_LINEAR, context->device));
}

static void pool_give(struct alloc *entry)
{
    entry->pool->used -= entry->bytes;
    if (entry->pool->used == 0) { /* no threshold: all goes back when nothing is in use */
        fake_take(entry->card, -entry->pool->reserved);
        entry->pool->reserved = 0;
    }
}

static CUresult free_any(CUdeviceptr address)
{
    struct alloc *entry = find(address);
    if (entry == NULL || entry->kind == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (entry->kind == A_LINEAR || entry->kind == A_MANAGED)
        give_linear(entry->card, entry->bytes);
    else if (entry->kind == A_POOLED)
        pool_give(entry);
    else if (entry->kind == A_GRAPHMEM)
        graph_used[entry->card] -= entry->bytes;
    else
        return CUDA_ERROR_INVALID_VALUE;
    drop(entry);
    return CUDA_SUCCESS;
}

API CUresult cuMemFree_v2(CUdeviceptr address)
{
    if (address == 0)
        return CUDA_SUCCESS;
    ENTER;
    (void)context;
    return leave(free_any(address));
}

API CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned int flags)
{
    (void)flags;
    *out = calloc(1, bytes);
    return *out == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *host, unsigned int flags)
{
    (void)flags;
    *out = (CUdeviceptr)(uintptr_t)host;
    return CUDA_SUCCESS;
}

API CUresult cuMemFreeHost(void *host)
{
    free(host);
    return CUDA_SUCCESS;
}

API CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address)
{
    if (attribute != CU_POINTER_ATTRIBUTE_MEMORY_TYPE || !fake_on_card(address))
        return CUDA_ERROR_INVALID_VALUE;
    *(unsigned int *)value = CU_MEMORYTYPE_DEVICE;
    return CUDA_SUCCESS;
}

/* ---- pools ---- */

static fake_pool *pool_of(CUmemoryPool pool, int card)
{
    fake_pool *mine = pool == NULL ? &default_pools[card] : (fake_pool *)pool;
    if (pool == NULL)
        mine->card = card;
    return mine;
}

static CUresult pool_alloc(CUdeviceptr *out, size_t bytes, fake_pool *pool)
{
    const int64_t need = (int64_t)(bytes + 511) / 512 * 512, chunk = POOL_CHUNK_MIB * MIB;
    if (bytes == 0 || bytes > (size_t)1 << 50)
        return bytes == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    const int64_t missing = pool->used + need - pool->reserved;
    const int64_t growth = missing <= 0 ? 0 : (missing + chunk - 1) / chunk * chunk;
    if (!fake_take(pool->card, growth))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pool->reserved += growth;
    pool->used += need;
    *out = fake_address(need);
    add((struct alloc){.key = *out, .bytes = need, .card = pool->card, .kind = A_POOLED, .pool = (CUmemoryPool)pool});
    return CUDA_SUCCESS;
}

static CUresult alloc_async(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    if (fake_is_capturing(stream)) {
        *out = fake_capture_alloc(stream, (int64_t)bytes);
        return CUDA_SUCCESS;
    }
    ENTER;
    return leave(pool_alloc(out, bytes, pool_of(pool, context->device)));
}

API CUresult cuMemAllocAsync(CUdeviceptr *out, size_t bytes, CUstream stream)
{
    return alloc_async(out, bytes, NULL, stream);
}

API CUresult cuMemAllocAsync_ptsz(CUdeviceptr *out, size_t bytes, CUstream stream)
{
    return alloc_async(out, bytes, NULL, stream);
}

API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    return alloc_async(out, bytes, pool, stream);
}

API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    if (fake_is_capturing(stream))
        return CUDA_SUCCESS;
    return cuMemFree_v2(address);
}

API CUresult cuMemFreeAsync_ptsz(CUdeviceptr address, CUstream stream)
{
    return cuMemFreeAsync(address, stream);
}

API CUresult cuDeviceGetMemPool(CUmemoryPool *out, CUdevice device)
{
    *out = (CUmemoryPool)pool_of(NULL, device);
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice device)
{
    return cuDeviceGetMemPool(out, device);
}

API CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
    fake_pool *pool = calloc(1, sizeof *pool);
    pool->card = props->location.id;
    *out = (CUmemoryPool)pool;
    return CUDA_SUCCESS;
}

API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    pthread_mutex_lock(&fake_lock);
    fake_pool *mine = (fake_pool *)pool;
    if (mine->used == 0) {
        fake_take(mine->card, -mine->reserved);
        free(mine);
    }
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    pthread_mutex_lock(&fake_lock);
    fake_pool *mine = (fake_pool *)pool;
    if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
        *(uint64_t *)value = (uint64_t)mine->reserved;
    else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        *(uint64_t *)value = (uint64_t)mine->used;
    else
        return leave(CUDA_ERROR_NOT_SUPPORTED);
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    pthread_mutex_lock(&fake_lock);
    fake_pool *mine = (fake_pool *)pool;
    const int64_t low = mine->used > (int64_t)keep ? mine->used : (int64_t)keep;
    const int64_t chunk = POOL_CHUNK_MIB * MIB, floor = (low + chunk - 1) / chunk * chunk;
    if (mine->reserved > floor) {
        fake_take(mine->card, floor - mine->reserved);
        mine->reserved = floor;
    }
    return leave(CUDA_SUCCESS);
}

/* ---- graph memory ---- */

CUdeviceptr fake_graph_address(int card, int64_t bytes)
{
    const CUdeviceptr address = fake_address(bytes);
    add((struct alloc){.key = address, .bytes = bytes, .card = card, .kind = A_GRAPHMEM});
    return address;
}

bool fake_graph_memory(int card, int64_t bytes)
{
    graph_used[card] += bytes;
    const int64_t need = (graph_used[card] + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    if (need > graph_reserved[card]) {
        if (!fake_take(card, need - graph_reserved[card])) {
            graph_used[card] -= bytes;
            return false;
        }
        graph_reserved[card] = need;
    }
    return true;
}

API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value)
{
    pthread_mutex_lock(&fake_lock);
    *(uint64_t *)value = (uint64_t)(attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT ? graph_reserved[device]
                                                                                      : graph_used[device]);
    return leave(CUDA_SUCCESS);
}

API CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    pthread_mutex_lock(&fake_lock);
    const int64_t keep = (graph_used[device] + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    fake_take(device, keep - graph_reserved[device]);
    graph_reserved[device] = keep;
    return leave(CUDA_SUCCESS);
}

/* ---- virtual memory ---- */

static void unhold(struct alloc *entry)
{
    if (--entry->holders == 0) {
        fake_take(entry->card, -entry->bytes);
        drop(entry);
    }
}

API CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *prop,
                         unsigned long long flags)
{
    (void)flags;
    if (!fake_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (bytes == 0 || bytes % (size_t)(2 * MIB) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    const bool on_card = prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (on_card && !fake_take(prop->location.id, (int64_t)bytes))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *out = fake_address(0);
    add((struct alloc){.key = *out, .bytes = on_card ? (int64_t)bytes : 0, .card = prop->location.id, .kind = A_VMM, .holders = 1});
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = live(handle, A_VMM);
    if (entry == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    unhold(entry);
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *address)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = live((uint64_t)(uintptr_t)address, A_MAP);
    if (entry == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    entry->backing->holders++;
    *out = entry->backing->key;
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t alignment, CUdeviceptr hint, unsigned long long flags)
{
    (void)alignment, (void)hint, (void)flags;
    pthread_mutex_lock(&fake_lock);
    *out = fake_address((int64_t)bytes);
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes)
{
    (void)address, (void)bytes;
    return CUDA_SUCCESS;
}

API CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                      unsigned long long flags)
{
    (void)offset, (void)flags;
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = live(handle, A_VMM);
    if (entry == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    entry->holders++;
    add((struct alloc){.key = address, .bytes = (int64_t)bytes, .card = entry->card, .kind = A_MAP, .backing = entry});
    return leave(CUDA_SUCCESS);
}

API CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    for (CUdeviceptr at = address; at < address + bytes;) {
        struct alloc *entry = live(at, A_MAP);
        if (entry == NULL)
            break;
        result = CUDA_SUCCESS;
        at += (CUdeviceptr)entry->bytes;
        unhold(entry->backing);
        drop(entry);
    }
    return leave(result);
}

API CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const void *access, size_t count)
{
    (void)address, (void)bytes, (void)access, (void)count;
    return CUDA_SUCCESS;
}

/* ---- arrays ---- */

static int64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    const size_t height = d->height ? d->height : 1, depth = d->depth ? d->depth : 1;
    int64_t bytes = (int64_t)(d->width * height * depth * d->channels) * (d->format == 0x20 ? 4 : 1);
    if (levels > 1)
        bytes += bytes / 3;
    return (bytes + 65535) / 65536 * 65536;
}

static CUresult array(uint64_t *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels, int kind)
{
    ENTER;
    const int64_t bytes = array_bytes(d, levels);
    const bool deferred = (d->flags & CUDA_ARRAY3D_DEFERRED_MAPPING) != 0;
    if (!deferred && !fake_take(context->device, bytes))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *out = fake_address(0);
    add((struct alloc){.key = *out, .bytes = bytes, .card = context->device, .kind = kind, .holders = deferred ? 0 : 1});
    return leave(CUDA_SUCCESS);
}

static CUresult array_end(uint64_t key, int kind)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = live(key, kind);
    if (entry == NULL)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    if (entry->holders == 1)
        fake_take(entry->card, -entry->bytes);
    drop(entry);
    return leave(CUDA_SUCCESS);
}

API CUresult cuArrayCreate_v2(CUarray *out, const CUDA_ARRAY_DESCRIPTOR *d)
{
    const CUDA_ARRAY3D_DESCRIPTOR shape = {d->width, d->height, 0, d->format, d->channels, 0};
    return array((uint64_t *)out, &shape, 1, A_ARRAY);
}

API CUresult cuArray3DCreate_v2(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    return array((uint64_t *)out, d, 1, A_ARRAY);
}

API CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    return array((uint64_t *)out, d, levels, A_MIPMAP);
}

API CUresult cuArrayDestroy(CUarray handle)
{
    return array_end((uint64_t)(uintptr_t)handle, A_ARRAY);
}

API CUresult cuMipmappedArrayDestroy(CUmipmappedArray handle)
{
    return array_end((uint64_t)(uintptr_t)handle, A_MIPMAP);
}

static CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, uint64_t key, int kind)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = live(key, kind);
    if (entry == NULL || entry->holders != 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    out->bytes = (size_t)entry->bytes;
    return leave(CUDA_SUCCESS);
}

API CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUarray handle, CUdevice device)
{
    (void)device;
    return requirements(out, (uint64_t)(uintptr_t)handle, A_ARRAY);
}

API CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUmipmappedArray handle, CUdevice device)
{
    (void)device;
    return requirements(out, (uint64_t)(uintptr_t)handle, A_MIPMAP);
}

API CUresult cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *desc)
{
    ENTER;
    if (!fake_take(context->device, (int64_t)desc->bytes))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *(uint64_t *)out = fake_address(0);
    add((struct alloc){.key = *(uint64_t *)out, .bytes = (int64_t)desc->bytes, .card = context->device, .kind = A_EXTERNAL, .holders = 1});
    return leave(CUDA_SUCCESS);
}

API CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    return array_end((uint64_t)(uintptr_t)memory, A_EXTERNAL);
}
