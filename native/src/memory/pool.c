/*
 * Hooks of stream-ordered memory, which the driver pools.
 *
 * What counts is what a pool has taken from the card (its reserved bytes), not what was asked of it: a reservation
 * stands while the driver works, and is then replaced by the pool's growth.
 */
#include "memory/graph.h"
#include "memory/handed.h"
#include "memory/later.h"
#include "memory/local.h"
#include "memory/map.h"
#include "pay/capture.h"
#include "process/state.h"

enum { POOL_CHUNK_BYTES = 32 << 20 }; /* as drivers do; where one takes more, the allocation is undone */

/* What a pool is, as its tag. */
enum { KNOWN /* a card's own, or of before the limits */, OF_THE_HOST, MADE, DESTROYED /* and kept by us */, GONE };

static hami_map pools = HAMI_MAP_INIT; /* pool -> charge */
static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER;

static int index_of(const hami_card *card)
{
    return (int)(card - hami_state.cards);
}

static bool capturing(CUstream stream)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    return USE(cuStreamIsCapturing, stream, &status) == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Under `settling`. */
static void settle_pool(hami_entry *entry, void *unused)
{
    (void)unused;
    uint64_t reserved = 0;
    if (entry->tag == OF_THE_HOST || USE(cuMemPoolGetAttribute, (CUmemoryPool)(uintptr_t)entry->key,
                               CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS)
        return;
    hami_move(&hami_state.cards[entry->card], HAMI_POOL, entry->bytes, (int64_t)reserved);
    entry->bytes = (int64_t)reserved;
}

static void trim_pool(hami_entry *entry, void *unused)
{
    (void)unused;
    if (entry->tag != OF_THE_HOST)
        BEHIND(cuMemPoolTrimTo, (CUmemoryPool)(uintptr_t)entry->key, 0);
    settle_pool(entry, NULL);
}

/* One that was destroyed holds nothing more: now it is. Not while something is captured, which to give memory back could spoil. */
static void end_pool(hami_entry *entry, void *unused)
{
    if (entry->tag != DESTROYED || hami_capturing())
        return;
    trim_pool(entry, unused);
    if (entry->bytes == 0 && BEHIND(cuMemPoolDestroy, (CUmemoryPool)(uintptr_t)entry->key) == CUDA_SUCCESS)
        entry->tag = GONE;
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

void hami_pools_refresh(bool trim)
{
    /* Whoever takes memory beside a capture has not asked for more than that. */
    const int mode = trim ? hami_relaxed_begin() : -1;
    pthread_mutex_lock(&settling);
    hami_entry gone;
    hami_map_each(&pools, trim ? trim_pool : settle_pool, NULL);
    hami_map_each(&pools, end_pool, NULL);
    while (hami_map_take_tag(&pools, GONE, &gone)) {
    }
    pthread_mutex_unlock(&settling);
    hami_later_refresh();
    hami_graphs_refresh(trim);
    hami_relaxed_end(mode);
    hami_handed_refresh();
}

void hami_pools_pause(void)
{
    if (!atomic_load(&hami_active))
        return; /* in a forked child: another thread may have had the lock */
    pthread_mutex_lock(&settling);
    pthread_mutex_unlock(&settling);
}

/* ---- whose card it is on: the current one only where nothing says more ---- */

static bool is_pool_of(CUmemoryPool pool, const hami_card *card)
{
    CUmemoryPool own = NULL;
    return (USE(cuDeviceGetDefaultMemPool, &own, card->device) == CUDA_SUCCESS && own == pool) ||
           (USE(cuDeviceGetMemPool, &own, card->device) == CUDA_SUCCESS && own == pool);
}

static hami_card *card_of_pool(CUmemoryPool pool, hami_card *current)
{
    hami_entry entry;
    if (hami_state.card_count == 1)
        return current;
    if (hami_map_get(&pools, (uint64_t)(uintptr_t)pool, false, &entry))
        return &hami_state.cards[entry.card];
    for (int i = 0; i < hami_state.card_count; i++) {
        if (is_pool_of(pool, &hami_state.cards[i]))
            return &hami_state.cards[i];
    }
    return current;
}

/* To ask for the device of a stream spoils a capture, to ask for its context does not (measured). NULL: its context nobody knows. */
static hami_card *card_of_its_context(CUstream stream)
{
    CUcontext context = NULL;
    return USE(cuStreamGetCtx, stream, &context) == CUDA_SUCCESS ? hami_local_card_of(context) : NULL;
}

/* The card's own default streams are of the current context. */
static hami_card *card_of_stream(CUstream stream, hami_card *current)
{
    CUdevice device;
    if (hami_state.card_count == 1 || stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
        return current;
    hami_card *card = card_of_its_context(stream);
    if (card == NULL && !hami_capturing() && USE(cuStreamGetDevice, stream, &device) == CUDA_SUCCESS)
        card = hami_card_of(device);
    return card == NULL ? current : card;
}

/* ---- stream-ordered ---- */

static bool host_pool(CUmemoryPool pool)
{
    hami_entry entry;
    return hami_map_get(&pools, (uint64_t)(uintptr_t)pool, false, &entry) && entry.tag == OF_THE_HOST;
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
    if (charge > 0)
        hami_asked(card);
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
        if (card == NULL || out == NULL || capturing(stream))                                                     \
            return BEHIND(cuMemAllocAsync##suffix, out, bytes, stream);                                           \
        card = card_of_stream(stream, card);                                                                      \
        if (USE(cuDeviceGetMemPool, &pool, card->device) != CUDA_SUCCESS || host_pool(pool))                      \
            return BEHIND(cuMemAllocAsync##suffix, out, bytes, stream);                                           \
        return pool_alloc(card, pool, out, bytes, stream, from_default##suffix, free_async##suffix);              \
    }                                                                                                             \
    CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream)  \
    {                                                                                                             \
        hami_card *card = hami_card_now();                                                                        \
        if (card == NULL || out == NULL || pool == NULL || capturing(stream) || host_pool(pool))                  \
            return BEHIND(cuMemAllocFromPoolAsync##suffix, out, bytes, pool, stream);                             \
        return pool_alloc(card_of_pool(pool, card), pool, out, bytes, stream, from_pool##suffix, free_async##suffix); \
    }                                                                                                             \
    CUresult cuMemFreeAsync##suffix(CUdeviceptr address, CUstream stream)                                         \
    {                                                                                                             \
        return hami_free_later(address, stream, free_async##suffix, in_order##suffix(stream));                    \
    }

/* What a stream is called in calls that are not of each thread's own default stream. */
static CUstream in_order(CUstream stream)
{
    return stream;
}

static CUstream in_order_ptsz(CUstream stream)
{
    return stream == NULL ? CU_STREAM_PER_THREAD : stream;
}

ASYNC()
ASYNC(_ptsz)

/* Managed memory may all come onto a card, wherever it is said to belong; of no context's, onto any. NULL: the host's. */
static hami_card *card_of_props(const CUmemPoolProps *props)
{
    if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        return hami_card_of(props->location.id);
    if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN)
        return hami_card_of(props->location.id & 0xff);
    hami_card *card = props->type == CU_MEM_ALLOCATION_TYPE_MANAGED ? hami_card_now() : NULL;
    return card != NULL || props->type != CU_MEM_ALLOCATION_TYPE_MANAGED || hami_state.card_count == 0 ? card : &hami_state.cards[0];
}

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
    const CUresult result = BEHIND(cuMemPoolCreate, out, props);
    if (result != CUDA_SUCCESS || !atomic_load(&hami_active) || props == NULL)
        return result;
    hami_card *card = card_of_props(props);
    hami_map_put(&pools, (hami_entry){.key = (uint64_t)(uintptr_t)*out,
                                      .card = (int16_t)(card == NULL ? 0 : index_of(card)),
                                      .tag = card == NULL ? OF_THE_HOST : MADE});
    return result;
}

/* Its card takes from its own pool again. */
static void replace_current(CUmemoryPool pool, CUdevice device)
{
    CUmemoryPool now = NULL, own = NULL;
    if (USE(cuDeviceGetMemPool, &now, device) == CUDA_SUCCESS && now == pool &&
        USE(cuDeviceGetDefaultMemPool, &own, device) == CUDA_SUCCESS)
        USE(cuDeviceSetMemPool, device, own);
}

/*
 * What is in use of a pool outlasts it, and so does what is freed in streams that have not come there; the driver tells nobody how much that is, once the
 * pool is destroyed. So that is put off, to the program unseen, until it holds nothing. False: it holds nothing already. Under `settling`.
 */
static bool put_off(hami_entry *entry)
{
    const CUmemoryPool pool = (CUmemoryPool)(uintptr_t)entry->key;
    uint64_t nothing = 0;
    if (entry->tag != MADE)
        return false;
    if (hami_capturing())
        settle_pool(entry, NULL);
    else
        trim_pool(entry, NULL);
    if (entry->bytes == 0)
        return false;
    replace_current(pool, hami_state.cards[entry->card].device);
    USE(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &nothing);
    entry->tag = DESTROYED;
    return true;
}

/* Under `settling`: nobody may ask a pool that is going away for its size. */
static CUresult destroy(CUmemoryPool pool)
{
    hami_entry entry;
    const bool ours = hami_map_get(&pools, (uint64_t)(uintptr_t)pool, true, &entry);
    const bool again = ours && entry.tag == DESTROYED, later = again || (ours && put_off(&entry));
    const CUresult result = again ? CUDA_ERROR_INVALID_VALUE : later ? CUDA_SUCCESS : BEHIND(cuMemPoolDestroy, pool);
    if (later || (ours && result != CUDA_SUCCESS))
        hami_map_put(&pools, entry);
    else if (ours)
        hami_give(&hami_state.cards[entry.card], HAMI_POOL, entry.bytes);
    return result;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuMemPoolDestroy, pool);
    pthread_mutex_lock(&settling);
    const CUresult result = destroy(pool);
    pthread_mutex_unlock(&settling);
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    const CUresult result = BEHIND(cuMemPoolTrimTo, pool, keep);
    if (atomic_load(&hami_active))
        hami_pools_refresh(false);
    return result;
}
