/*
 * Hooks of memory that the driver pools: stream-ordered pools, and the memory of graphs.
 *
 * What counts is what a pool has taken from the card (its reserved bytes), not what was asked of it: a reservation
 * stands while the driver works, and is then replaced by the pool's growth.
 */
#include <stdlib.h>

#include "memory/map.h"
#include "prim/prim.h"
#include "process/state.h"

enum { POOL_CHUNK_BYTES = 32 << 20 }; /* as drivers do; where one takes more, the allocation is undone */

static hami_map pools = HAMI_MAP_INIT; /* pool -> charge; tag 1: not on a card */
static hami_map execs = HAMI_MAP_INIT; /* executable graph -> bytes of its memory nodes; tag: epoch in which they were settled */
static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER;
static int64_t graph_bytes[HAMI_MAX_CARDS]; /* charged for graph memory, under `settling` */
static _Atomic uint64_t epoch = 1;          /* goes up when graph memory may have been given back */

static int index_of(const hami_card *card)
{
    return (int)(card - hami_state.cards);
}

static bool capturing(CUstream stream)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    return USE(cuStreamIsCapturing, stream, &status) == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Moves the charge of a kind from `charged` to `now`, whatever the limit: it is what the driver holds. */
static void move(hami_card *card, hami_kind kind, int64_t charged, int64_t now)
{
    if (now == charged)
        return;
    atomic_fetch_add_explicit(&card->changes, 1, memory_order_relaxed);
    hami_ledger_add(hami_state.ledger, hami_state.slot, card->ledger_index, kind, now - charged);
}

/* Under `settling`. */
static void settle_pool(hami_entry *entry, void *unused)
{
    (void)unused;
    uint64_t reserved = 0;
    if (entry->tag == 1 || USE(cuMemPoolGetAttribute, (CUmemoryPool)(uintptr_t)entry->key,
                               CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS)
        return;
    move(&hami_state.cards[entry->card], HAMI_POOL, entry->bytes, (int64_t)reserved);
    entry->bytes = (int64_t)reserved;
}

static void trim_pool(hami_entry *entry, void *unused)
{
    (void)unused;
    if (entry->tag != 1)
        BEHIND(cuMemPoolTrimTo, (CUmemoryPool)(uintptr_t)entry->key, 0);
    settle_pool(entry, NULL);
}

/* By how much it has grown since it was settled last. */
static int64_t settle_one(CUmemoryPool pool, hami_card *card)
{
    hami_entry entry = {.key = (uint64_t)(uintptr_t)pool, .card = (int16_t)index_of(card)};
    pthread_mutex_lock(&settling);
    hami_map_get(&pools, entry.key, false, &entry);
    const int64_t before = entry.bytes;
    settle_pool(&entry, NULL);
    hami_map_put(&pools, entry);
    pthread_mutex_unlock(&settling);
    return entry.bytes - before;
}

static void settle_graphs(hami_card *card)
{
    uint64_t reserved = 0;
    pthread_mutex_lock(&settling);
    if (USE(cuDeviceGetGraphMemAttribute, card->device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) == CUDA_SUCCESS) {
        move(card, HAMI_GRAPH, graph_bytes[index_of(card)], (int64_t)reserved);
        graph_bytes[index_of(card)] = (int64_t)reserved;
    }
    pthread_mutex_unlock(&settling);
}

void hami_pools_refresh(bool trim)
{
    pthread_mutex_lock(&settling);
    hami_map_each(&pools, trim ? trim_pool : settle_pool, NULL);
    pthread_mutex_unlock(&settling);
    for (int i = 0; i < hami_state.card_count; i++) {
        if (graph_bytes[i] == 0)
            continue;
        if (trim) {
            BEHIND(cuDeviceGraphMemTrim, hami_state.cards[i].device);
            atomic_fetch_add(&epoch, 1);
        }
        settle_graphs(&hami_state.cards[i]);
    }
}

/* ---- stream-ordered ---- */

static bool host_pool(CUmemoryPool pool)
{
    hami_entry entry;
    return hami_map_get(&pools, (uint64_t)(uintptr_t)pool, false, &entry) && entry.tag == 1;
}

/* Free bytes inside the pool: an allocation that fits there takes nothing from the card. */
static int64_t room_inside(CUmemoryPool pool)
{
    uint64_t reserved = 0, used = 0;
    if (USE(cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS ||
        USE(cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) != CUDA_SUCCESS || used > reserved)
        return 0;
    return (int64_t)(reserved - used);
}

/* A pool grows by whole chunks, and what it may grow by is reserved, not what is asked of it. */
static int64_t growth_for(size_t bytes)
{
    const int64_t asked = hami_linear_bytes(bytes < 1 << 21 ? 1 << 21 : bytes);
    return asked > INT64_MAX - POOL_CHUNK_BYTES ? asked : (asked + POOL_CHUNK_BYTES - 1) / POOL_CHUNK_BYTES * POOL_CHUNK_BYTES;
}

/* `allocate` and `release` are the driver's; both with this stream mode. */
static CUresult pool_alloc(hami_card *card, CUmemoryPool pool, CUdeviceptr *out, size_t bytes, CUstream stream,
                           CUresult (*allocate)(CUdeviceptr *, size_t, CUmemoryPool, CUstream),
                           CUresult (*release)(CUdeviceptr, CUstream))
{
    int64_t charge = growth_for(bytes);
    if (!hami_take(card, HAMI_POOL, charge)) {
        if (room_inside(pool) < (int64_t)bytes)
            return CUDA_ERROR_OUT_OF_MEMORY;
        charge = 0;
    }
    const CUresult result = allocate(out, bytes, pool, stream);
    const int64_t grown = settle_one(pool, card);
    hami_give(card, HAMI_POOL, charge);
    if (result == CUDA_SUCCESS && grown > charge && hami_ledger_held(hami_state.ledger, card->ledger_index) > atomic_load(&card->limit)) {
        release(*out, stream); /* the pool grew by more than it should */
        *out = 0;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

#define ASYNC(suffix)                                                                                             \
    static CUresult from_pool##suffix(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)         \
    {                                                                                                             \
        return BEHIND(cuMemAllocFromPoolAsync##suffix, out, bytes, pool, stream);                                 \
    }                                                                                                             \
    static CUresult from_default##suffix(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)      \
    {                                                                                                             \
        (void)pool;                                                                                               \
        return BEHIND(cuMemAllocAsync##suffix, out, bytes, stream);                                               \
    }                                                                                                             \
    static CUresult free_async##suffix(CUdeviceptr address, CUstream stream)                                      \
    {                                                                                                             \
        return BEHIND(cuMemFreeAsync##suffix, address, stream);                                                   \
    }                                                                                                             \
    CUresult cuMemAllocAsync##suffix(CUdeviceptr *out, size_t bytes, CUstream stream)                             \
    {                                                                                                             \
        hami_card *card = hami_card_now();                                                                        \
        CUmemoryPool pool = NULL;                                                                                 \
        if (card == NULL || out == NULL || capturing(stream) ||                                                   \
            USE(cuDeviceGetMemPool, &pool, card->device) != CUDA_SUCCESS || host_pool(pool))                      \
            return BEHIND(cuMemAllocAsync##suffix, out, bytes, stream);                                           \
        return pool_alloc(card, pool, out, bytes, stream, from_default##suffix, free_async##suffix);              \
    }                                                                                                             \
    CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)  \
    {                                                                                                             \
        hami_card *card = hami_card_now();                                                                        \
        if (card == NULL || out == NULL || pool == NULL || capturing(stream) || host_pool(pool))                  \
            return BEHIND(cuMemAllocFromPoolAsync##suffix, out, bytes, pool, stream);                             \
        return pool_alloc(card, pool, out, bytes, stream, from_pool##suffix, free_async##suffix);                 \
    }                                                                                                             \
    CUresult cuMemFreeAsync##suffix(CUdeviceptr address, CUstream stream)                                         \
    {                                                                                                             \
        return BEHIND(cuMemFreeAsync##suffix, address, stream); /* the pool keeps the bytes until it lets go */   \
    }
ASYNC()
ASYNC(_ptsz)

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
    const CUresult result = BEHIND(cuMemPoolCreate, out, props);
    if (result != CUDA_SUCCESS || !atomic_load(&hami_active) || props == NULL)
        return result;
    const bool on_card = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    hami_card *card = on_card ? hami_card_of(props->location.id) : NULL;
    hami_map_put(&pools, (hami_entry){.key = (uint64_t)(uintptr_t)*out,
                                      .card = (int16_t)(card == NULL ? 0 : index_of(card)),
                                      .tag = card == NULL ? 1 : 0});
    return result;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    hami_entry entry;
    pthread_mutex_lock(&settling); /* nobody may ask a pool that is going away for its size */
    const bool ours = hami_map_get(&pools, (uint64_t)(uintptr_t)pool, true, &entry);
    const CUresult result = BEHIND(cuMemPoolDestroy, pool);
    if (ours && result == CUDA_SUCCESS)
        hami_give(&hami_state.cards[entry.card], HAMI_POOL, entry.bytes);
    else if (ours)
        hami_map_put(&pools, entry);
    pthread_mutex_unlock(&settling);
    if (ours && atomic_load(&hami_active)) /* live allocations outlast the pool: NVML shows them */
        atomic_store(&hami_state.cards[entry.card].reconcile_due, true);
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    const CUresult result = BEHIND(cuMemPoolTrimTo, pool, keep);
    if (atomic_load(&hami_active))
        hami_pools_refresh(false);
    return result;
}

/* ---- graphs ---- */

static int64_t node_bytes(CUgraph graph, int depth);

static int64_t bytes_of(CUgraphNode node, int depth)
{
    int type = -1;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {0};
    CUgraph child = NULL;
    if (USE(cuGraphNodeGetType, node, &type) != CUDA_SUCCESS)
        return 0;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && USE(cuGraphMemAllocNodeGetParams, node, &params) == CUDA_SUCCESS)
        return hami_linear_bytes(params.bytes < 1 << 21 ? 1 << 21 : params.bytes);
    if (type == CU_GRAPH_NODE_TYPE_GRAPH && USE(cuGraphChildGraphNodeGetGraph, node, &child) == CUDA_SUCCESS)
        return node_bytes(child, depth + 1);
    return 0;
}

/* Bytes that the graph's memory nodes ask for, child graphs included. */
static int64_t node_bytes(CUgraph graph, int depth)
{
    size_t count = 0;
    if (depth > 16 || USE(cuGraphGetNodes, graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return 0;
    CUgraphNode *nodes = malloc(count * sizeof(CUgraphNode));
    int64_t sum = 0;
    if (nodes != NULL && USE(cuGraphGetNodes, graph, nodes, &count) == CUDA_SUCCESS) {
        for (size_t i = 0; i < count; i++) {
            if (__builtin_add_overflow(sum, bytes_of(nodes[i], depth), &sum))
                sum = INT64_MAX;
        }
    }
    free(nodes);
    return sum;
}

/* Reserves what a graph's memory nodes may take. Returns what was reserved: 0 when the card's graph memory has room for it
   already (what one graph has freed serves the next), below 0 when it is refused. */
static int64_t graph_begin(hami_card *card, int64_t bytes)
{
    uint64_t reserved = 0, used = 0;
    if (hami_take(card, HAMI_GRAPH, bytes))
        return bytes;
    if (USE(cuDeviceGetGraphMemAttribute, card->device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS ||
        USE(cuDeviceGetGraphMemAttribute, card->device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used) != CUDA_SUCCESS)
        return -1;
    return reserved >= used && (int64_t)(reserved - used) >= bytes ? 0 : -1;
}

static void graph_end(hami_card *card, int64_t reserved)
{
    settle_graphs(card);
    hami_give(card, HAMI_GRAPH, reserved);
}

static CUresult instantiated(CUresult result, CUgraphExec *out, hami_card *card, int64_t bytes)
{
    if (result == CUDA_SUCCESS && out != NULL && bytes > 0)
        hami_map_put(&execs, (hami_entry){.key = (uint64_t)(uintptr_t)*out, .bytes = bytes, .card = (int16_t)index_of(card)});
    return result;
}

#define INSTANTIATE(name, parameters, ...)                                           \
    CUresult name parameters                                                         \
    {                                                                                \
        hami_card *card = hami_card_now();                                           \
        const int64_t bytes = card == NULL ? 0 : node_bytes(graph, 0);               \
        if (bytes == 0)                                                              \
            return BEHIND(name, __VA_ARGS__);                                        \
        const int64_t reserved = graph_begin(card, bytes);                           \
        if (reserved < 0)                                                            \
            return CUDA_ERROR_OUT_OF_MEMORY;                                         \
        const CUresult result = instantiated(BEHIND(name, __VA_ARGS__), out, card, bytes); \
        graph_end(card, reserved);                                                   \
        return result;                                                               \
    }
INSTANTIATE(cuGraphInstantiate, (CUgraphExec * out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes), out,
            graph, error_node, log, log_bytes)
INSTANTIATE(cuGraphInstantiate_v2, (CUgraphExec * out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes),
            out, graph, error_node, log, log_bytes)
INSTANTIATE(cuGraphInstantiateWithFlags, (CUgraphExec * out, CUgraph graph, unsigned long long flags), out, graph, flags)
INSTANTIATE(cuGraphInstantiateWithParams, (CUgraphExec * out, CUgraph graph, void *params), out, graph, params)
INSTANTIATE(cuGraphInstantiateWithParams_ptsz, (CUgraphExec * out, CUgraph graph, void *params), out, graph, params)

CUresult hami_graph_run(CUgraphExec exec, CUstream stream, CUresult (*run)(CUgraphExec, CUstream))
{
    hami_entry entry;
    const uint64_t now = atomic_load(&epoch);
    if (!atomic_load(&hami_active) || !hami_map_get(&execs, (uint64_t)(uintptr_t)exec, false, &entry) || entry.tag == now)
        return run(exec, stream);
    hami_card *card = &hami_state.cards[entry.card];
    const int64_t reserved = graph_begin(card, entry.bytes);
    if (reserved < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = run(exec, stream);
    graph_end(card, reserved);
    if (result == CUDA_SUCCESS) {
        entry.tag = now; /* its memory is there now; running it again takes no more */
        hami_map_put(&execs, entry);
    }
    return result;
}

static CUresult upload(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphUpload, exec, stream);
}

static CUresult upload_ptsz(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphUpload_ptsz, exec, stream);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    return hami_graph_run(exec, stream, upload);
}

CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
    return hami_graph_run(exec, stream, upload_ptsz);
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    hami_entry entry;
    const bool ours = hami_map_get(&execs, (uint64_t)(uintptr_t)exec, true, &entry);
    const CUresult result = BEHIND(cuGraphExecDestroy, exec);
    if (ours && atomic_load(&hami_active))
        settle_graphs(&hami_state.cards[entry.card]);
    return result;
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    const CUresult result = BEHIND(cuDeviceGraphMemTrim, device);
    hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    if (card != NULL) {
        atomic_fetch_add(&epoch, 1);
        settle_graphs(card);
    }
    return result;
}
