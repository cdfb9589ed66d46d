/* Hooks of linear memory, arrays, imported memory, and of the questions how much there is. */
#include "memory/ipc.h"
#include "memory/graph.h"
#include "memory/local.h"
#include "memory/map.h"
#include "memory/vmm.h"
#include "process/state.h"

static hami_map buffers = HAMI_MAP_INIT;   /* address -> charge */
static hami_map arrays = HAMI_MAP_INIT;    /* array, mipmap or external memory -> charge */

#define MIB ((int64_t)1 << 20)

static int index_of(const hami_card *card)
{
    return (int)(card - hami_state.cards);
}

/* Writes down what was charged for `key`. Cannot be remembered: charged until the process ends, which errs safely. */
static void remember(hami_map *map, uint64_t key, hami_card *card, hami_kind kind, int64_t bytes)
{
    CUcontext context = NULL; /* what a context holds goes with it */
    USE(cuCtxGetCurrent, &context);
    hami_map_put(map, (hami_entry){.key = key,
                                   .bytes = bytes,
                                   .tag = (uint64_t)(uintptr_t)context,
                                   .card = (int16_t)index_of(card),
                                   .kind = (int16_t)kind});
}

/* `offer`: its key, where others may have it mapped. */
static void forget(hami_entry entry, uint64_t offer)
{
    hami_card *card = &hami_state.cards[entry.card];
    if (entry.spare != 0 && hami_vmm_leave(card, (hami_kind)entry.kind, entry.bytes, entry.spare))
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
    hami_map_each(&buffers, mark_if, &m);
    return m.found;
}

/*
 * Frees through `call`. The entry leaves the map first: once the driver has freed, another thread may get the address. A forked child asks
 * nobody: another thread may have had the lock.
 */
#define FREE(map, key, call)                                            \
    do {                                                                \
        hami_entry entry;                                               \
        if (!atomic_load(&hami_active))                                 \
            return (call);                                              \
        const bool ours = hami_map_get((map), (uint64_t)(key), true, &entry); \
        const uint64_t offer = ours && (map) == &buffers ? hami_offer_leaves(key) : 0; \
        const CUresult result = (call);                                 \
        if (ours && result == CUDA_SUCCESS) {                           \
            forget(entry, offer);                                       \
        } else if (ours) {                                              \
            hami_map_put((map), entry);                                 \
            hami_offer_stays(key, offer);                               \
        }                                                               \
        return result;                                                  \
    } while (0)

static void rename_all(CUcontext from, CUcontext to)
{
    hami_map_retag(&buffers, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
    hami_map_retag(&arrays, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
    hami_arrays_rename(from, to);
    hami_modules_rename(from, to);
    hami_local_rename(from, to);
}

CUcontext hami_memory_leaves(CUcontext context)
{
    static _Atomic uintptr_t last = 1; /* odd, as no handle is */
    const CUcontext name = (CUcontext)atomic_fetch_add(&last, 2);
    if (context != NULL)
        rename_all(context, name);
    return name;
}

static void all_gone(CUcontext context)
{
    hami_entry entry;
    while (hami_map_take_tag(&buffers, (uint64_t)(uintptr_t)context, &entry))
        forget(entry, hami_offer_leaves(entry.key));
    while (hami_map_take_tag(&arrays, (uint64_t)(uintptr_t)context, &entry))
        forget(entry, 0);
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
        rename_all(name, context);
}

/* ---- linear ---- */

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL)
        return BEHIND(cuMemAlloc_v2, out, bytes);
    const int64_t charge = hami_linear_bytes(bytes);
    if (!hami_take(card, HAMI_BUFFER, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuMemAlloc_v2, out, bytes);
    if (result == CUDA_SUCCESS)
        remember(&buffers, *out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    return result;
}

/* Charged in full: all of it can be on the card at once. */
CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned int flags)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL)
        return BEHIND(cuMemAllocManaged, out, bytes, flags);
    const int64_t charge = hami_linear_bytes(bytes);
    if (!hami_take(card, HAMI_BUFFER, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuMemAllocManaged, out, bytes, flags);
    if (result == CUDA_SUCCESS)
        remember(&buffers, *out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    return result;
}

/* The pitch is the driver's choice: reserve for a row rounded up to 512, then keep what it came to. */
CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width_bytes, size_t height, unsigned int element_bytes)
{
    hami_card *card = hami_card_now();
    size_t guess, actual;
    if (card == NULL || out == NULL || pitch == NULL || __builtin_add_overflow(width_bytes, (size_t)511, &guess))
        return BEHIND(cuMemAllocPitch_v2, out, pitch, width_bytes, height, element_bytes);
    if (__builtin_mul_overflow(guess / 512 * 512, height, &guess))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const int64_t charge = hami_linear_bytes(guess);
    if (!hami_take(card, HAMI_BUFFER, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuMemAllocPitch_v2, out, pitch, width_bytes, height, element_bytes);
    if (result != CUDA_SUCCESS || __builtin_mul_overflow(*pitch, height, &actual)) {
        hami_give(card, HAMI_BUFFER, charge);
        return result;
    }
    const int64_t final = hami_linear_bytes(actual);
    if (final > charge && !hami_take(card, HAMI_BUFFER, final - charge)) {
        BEHIND(cuMemFree_v2, *out);
        hami_give(card, HAMI_BUFFER, charge);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (final < charge)
        hami_give(card, HAMI_BUFFER, charge - final);
    remember(&buffers, *out, card, HAMI_BUFFER, final);
    return result;
}

/* Addresses we do not know (a pool's, a capture's, imported ones) are as legal here: the driver decides. */
CUresult cuMemFree_v2(CUdeviceptr address)
{
    FREE(&buffers, address, BEHIND(cuMemFree_v2, address));
}

/* ---- arrays ---- */

static size_t format_bytes(int format)
{
    switch (format) {
    case 0x01: case 0x08: return 1;
    case 0x02: case 0x09: case 0x10: return 2;
    case 0x03: case 0x0a: case 0x20: return 4;
    default: return 4; /* block and video formats: at most so much a texel */
    }
}

/* A generous estimate, replaced by the driver's own figure once the array is there. */
static int64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels)
{
    const size_t height = desc->height == 0 ? 1 : desc->height, depth = desc->depth == 0 ? 1 : desc->depth;
    size_t bytes;
    if (__builtin_mul_overflow(desc->width, height, &bytes) || __builtin_mul_overflow(bytes, depth, &bytes) ||
        __builtin_mul_overflow(bytes, format_bytes(desc->format) * (desc->channels == 0 ? 1 : desc->channels), &bytes) ||
        bytes > (size_t)1 << 50)
        return INT64_MAX;
    if (levels > 1)
        bytes += bytes / 2; /* a third in two dimensions; tails are padded */
    const int64_t unit = bytes < (size_t)MIB ? 64 * 1024 : 2 * MIB;
    return ((int64_t)bytes + unit - 1) / unit * unit;
}

/* Exact, from an array without memory of its own but of the same shape. 0: this driver cannot say. */
static int64_t asked_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, CUdevice device)
{
    CUDA_ARRAY3D_DESCRIPTOR twin = *desc;
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {0};
    CUarray array = NULL;
    CUmipmappedArray mipmap = NULL;
    twin.flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (levels == 0) {
        if (BEHIND(cuArray3DCreate_v2, &array, &twin) != CUDA_SUCCESS)
            return 0;
        if (USE(cuArrayGetMemoryRequirements, &needs, array, device) != CUDA_SUCCESS)
            needs.bytes = 0;
        BEHIND(cuArrayDestroy, array);
    } else {
        if (BEHIND(cuMipmappedArrayCreate, &mipmap, &twin, levels) != CUDA_SUCCESS)
            return 0;
        if (USE(cuMipmappedArrayGetMemoryRequirements, &needs, mipmap, device) != CUDA_SUCCESS)
            needs.bytes = 0;
        BEHIND(cuMipmappedArrayDestroy, mipmap);
    }
    return (int64_t)needs.bytes;
}

/* Without memory at creation: its pages are charged where they come from. */
static bool without_memory(unsigned int flags)
{
    return (flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0;
}

static CUresult make_array(void **out, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, hami_card *card,
                           CUresult (*create)(void **out, const void *desc, unsigned int levels), const void *original)
{
    int64_t charge = asked_bytes(desc, levels, card->device);
    if (charge == 0)
        charge = array_bytes(desc, levels);
    if (!hami_take(card, HAMI_ARRAY, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = create(out, original, levels);
    if (result == CUDA_SUCCESS)
        remember(&arrays, (uint64_t)(uintptr_t)*out, card, HAMI_ARRAY, charge);
    else
        hami_give(card, HAMI_ARRAY, charge);
    return result;
}

static CUresult create_2d(void **out, const void *desc, unsigned int levels)
{
    (void)levels;
    return BEHIND(cuArrayCreate_v2, (CUarray *)out, desc);
}

static CUresult create_3d(void **out, const void *desc, unsigned int levels)
{
    (void)levels;
    return BEHIND(cuArray3DCreate_v2, (CUarray *)out, desc);
}

static CUresult create_mipmap(void **out, const void *desc, unsigned int levels)
{
    return BEHIND(cuMipmappedArrayCreate, (CUmipmappedArray *)out, desc, levels);
}

CUresult cuArrayCreate_v2(CUarray *out, const CUDA_ARRAY_DESCRIPTOR *desc)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL || desc == NULL)
        return BEHIND(cuArrayCreate_v2, out, desc);
    const CUDA_ARRAY3D_DESCRIPTOR shape = {desc->width, desc->height, 0, desc->format, desc->channels, 0};
    return make_array((void **)out, &shape, 0, card, create_2d, desc);
}

CUresult cuArray3DCreate_v2(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *desc)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL || desc == NULL || without_memory(desc->flags))
        return BEHIND(cuArray3DCreate_v2, out, desc);
    return make_array((void **)out, desc, 0, card, create_3d, desc);
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL || desc == NULL || levels == 0 || without_memory(desc->flags))
        return BEHIND(cuMipmappedArrayCreate, out, desc, levels);
    return make_array((void **)out, desc, levels, card, create_mipmap, desc);
}

CUresult cuArrayDestroy(CUarray array)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuArrayDestroy, array);
    hami_block *parts = hami_array_leaves((uintptr_t)array);
    FREE(&arrays, (uintptr_t)array, hami_array_left((uintptr_t)array, parts, BEHIND(cuArrayDestroy, array)));
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuMipmappedArrayDestroy, array);
    hami_block *parts = hami_array_leaves((uintptr_t)array);
    FREE(&arrays, (uintptr_t)array, hami_array_left((uintptr_t)array, parts, BEHIND(cuMipmappedArrayDestroy, array)));
}

/* ---- memory of another API: paid for where it enters ---- */

CUresult cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *desc)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL || desc == NULL)
        return BEHIND(cuImportExternalMemory, out, desc);
    const int64_t charge = hami_linear_bytes(desc->bytes);
    if (!hami_take(card, HAMI_BUFFER, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuImportExternalMemory, out, desc);
    if (result == CUDA_SUCCESS)
        remember(&arrays, (uintptr_t)*out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    return result;
}

CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    FREE(&arrays, (uintptr_t)memory, BEHIND(cuDestroyExternalMemory, memory));
}

/* ---- how much is there: the slice ---- */

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    size_t real_free = 0, real_total = 0;
    const CUresult result = BEHIND(cuMemGetInfo_v2, &real_free, &real_total);
    if (result != CUDA_SUCCESS)
        return result;
    hami_card *card = hami_card_now();
    if (card != NULL && (uint64_t)atomic_load(&card->limit) < real_total) {
        if (atomic_load(&card->reconcile_due))
            hami_reconcile(card);
        const size_t left = (size_t)(atomic_load(&card->limit) - hami_used(card));
        real_total = (size_t)atomic_load(&card->limit);
        real_free = left < real_free ? left : real_free;
    }
    if (free_bytes != NULL)
        *free_bytes = real_free;
    if (total_bytes != NULL)
        *total_bytes = real_total;
    return result;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    const CUresult result = BEHIND(cuDeviceTotalMem_v2, bytes, device);
    if (result != CUDA_SUCCESS || !atomic_load(&hami_active))
        return result;
    hami_card *card = hami_card_of(device);
    if (card != NULL && (uint64_t)atomic_load(&card->limit) < *bytes)
        *bytes = (size_t)atomic_load(&card->limit);
    return result;
}

static unsigned int clip(size_t bytes)
{
    return bytes > UINT32_MAX ? UINT32_MAX : (unsigned int)bytes;
}

/* Before CUDA 3.2: 32-bit sizes. */
CUresult cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
    size_t wide_free = 0, wide_total = 0;
    const CUresult result = cuMemGetInfo_v2(&wide_free, &wide_total);
    if (result == CUDA_SUCCESS && free_bytes != NULL)
        *free_bytes = clip(wide_free);
    if (result == CUDA_SUCCESS && total_bytes != NULL)
        *total_bytes = clip(wide_total);
    return result;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
    size_t wide = 0;
    const CUresult result = cuDeviceTotalMem_v2(&wide, device);
    if (result == CUDA_SUCCESS && bytes != NULL)
        *bytes = clip(wide);
    return result;
}
