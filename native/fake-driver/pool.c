/* Stream-ordered pools, and the memory of graphs. See fake.h. */
#include <stdlib.h>

#include "alloc.h"

/* FAKE_CUDA_CHUNK_MIB: by how much pools grow. */
static int64_t chunk_bytes(void)
{
    const char *mib = getenv("FAKE_CUDA_CHUNK_MIB");
    return (mib == NULL ? 32 : atoi(mib)) * MIB;
}

typedef struct CUmemPoolHandle_st {
    int card;
    int64_t reserved, used;
} fake_pool;
static fake_pool default_pools[SIM_LIVE_CARDS];
static fake_pool *current_pools[SIM_LIVE_CARDS]; /* NULL: the default one */
static int64_t graph_reserved[SIM_LIVE_CARDS], graph_used[SIM_LIVE_CARDS];
static int64_t graph_passing[SIM_LIVE_CARDS]; /* of those that give back what they take: called used all the same, as a card does */

void fake_pool_give(struct alloc *entry)
{
    entry->pool->used -= entry->bytes;
    if (entry->pool->used == 0) { /* no threshold: all goes back when nothing is in use */
        fake_take(entry->card, -entry->pool->reserved);
        entry->pool->reserved = 0;
    }
}

static fake_pool *pool_of(CUmemoryPool pool, int card)
{
    if (pool != NULL)
        return (fake_pool *)pool;
    default_pools[card].card = card;
    return current_pools[card] == NULL ? &default_pools[card] : current_pools[card];
}

static CUresult pool_alloc(CUdeviceptr *out, size_t bytes, fake_pool *pool)
{
    const int64_t need = (int64_t)(bytes + 511) / 512 * 512, chunk = chunk_bytes();
    if (bytes == 0 || bytes > (size_t)1 << 50)
        return bytes == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    const int64_t missing = pool->used + need - pool->reserved;
    const int64_t growth = missing <= 0 ? 0 : (missing + chunk - 1) / chunk * chunk;
    if (!fake_take(pool->card, growth))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pool->reserved += growth;
    pool->used += need;
    *out = fake_address(need);
    fake_add((struct alloc){.key = *out, .bytes = need, .card = pool->card, .kind = A_POOLED, .pool = (CUmemoryPool)pool});
    return CUDA_SUCCESS;
}

static CUresult alloc_async(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    if (fake_is_capturing(stream)) {
        *out = fake_capture_alloc(stream, (int64_t)bytes);
        return CUDA_SUCCESS;
    }
    ENTER;
    (void)context;
    return fake_leave(pool_alloc(out, bytes, pool_of(pool, fake_card_of(stream))));
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
    if (!fake_is_capturing(stream))
        return cuMemFree_v2(address);
    fake_capture_free(stream, address);
    return CUDA_SUCCESS;
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
    default_pools[device].card = device;
    *out = (CUmemoryPool)&default_pools[device];
    return CUDA_SUCCESS;
}

API CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
    current_pools[device] = (fake_pool *)pool;
    return CUDA_SUCCESS;
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
    if (mine == &default_pools[mine->card])
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    current_pools[mine->card] = current_pools[mine->card] == mine ? NULL : current_pools[mine->card];
    if (mine->used == 0) { /* else what is in use stays until it is given back */
        fake_take(mine->card, -mine->reserved);
        free(mine);
    }
    return fake_leave(CUDA_SUCCESS);
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
        return fake_leave(CUDA_ERROR_NOT_SUPPORTED);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    pthread_mutex_lock(&fake_lock);
    if (fake_forbidden())
        return fake_leave(FAKE_FORBIDDEN);
    fake_pool *mine = (fake_pool *)pool;
    const int64_t low = mine->used > (int64_t)keep ? mine->used : (int64_t)keep;
    const int64_t chunk = chunk_bytes(), floor = (low + chunk - 1) / chunk * chunk;
    if (mine->reserved > floor) {
        fake_take(mine->card, floor - mine->reserved);
        mine->reserved = floor;
    }
    return fake_leave(CUDA_SUCCESS);
}

/* ---- graph memory ---- */

void fake_graph_give(const struct alloc *entry)
{
    graph_used[entry->card] -= entry->bytes;
}

CUdeviceptr fake_graph_address(int card, int64_t bytes)
{
    const CUdeviceptr address = fake_address(bytes);
    fake_add((struct alloc){.key = address, .bytes = bytes, .card = card, .kind = A_GRAPHMEM});
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

bool fake_graph_room(int card, int64_t bytes)
{
    const int64_t used = graph_used[card];
    const bool fits = fake_graph_memory(card, bytes);
    graph_used[card] = used;
    if (fits && bytes > graph_passing[card])
        graph_passing[card] = bytes;
    return fits;
}

API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value)
{
    pthread_mutex_lock(&fake_lock);
    *(uint64_t *)value = (uint64_t)(attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT ? graph_reserved[device]
                                                                                      : graph_used[device] + graph_passing[device]);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    pthread_mutex_lock(&fake_lock);
    if (fake_forbidden())
        return fake_leave(FAKE_FORBIDDEN);
    graph_passing[device] = device == 0 ? fake_graph_busy() : 0;
    const int64_t keep = (graph_used[device] + graph_passing[device] + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    fake_take(device, keep - graph_reserved[device]);
    graph_reserved[device] = keep;
    return fake_leave(CUDA_SUCCESS);
}
