/* Hooks of arrays and mipmaps, whose size the driver says before they are there. */
#include "memory/held.h"
#include "memory/vmm.h"

#define MIB ((int64_t)1 << 20)

static size_t format_bytes(int format)
{
    switch (format) {
    case 0x01: case 0x08: return 1;
    case 0x02: case 0x09: case 0x10: return 2;
    case 0x03: case 0x0a: case 0x20: return 4;
    default: return 4; /* block and video formats: at most so much a texel */
    }
}

/* A generous estimate, for where the driver does not say. INT64_MAX: no card has that. */
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
    const int64_t guess = array_bytes(desc, levels), asked = guess == INT64_MAX ? 0 : asked_bytes(desc, levels, card->device);
    const int64_t charge = asked > 0 ? asked : guess;
    if (!hami_take(card, HAMI_ARRAY, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = create(out, original, levels);
    if (result == CUDA_SUCCESS)
        hami_remember(&hami_arrays, (uint64_t)(uintptr_t)*out, card, HAMI_ARRAY, charge);
    else
        hami_give(card, HAMI_ARRAY, charge);
    hami_asked(card);
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

/* No levels are one: the driver takes the nearest number that there can be. */
CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels)
{
    hami_card *card = hami_card_now();
    if (card == NULL || out == NULL || desc == NULL || without_memory(desc->flags))
        return BEHIND(cuMipmappedArrayCreate, out, desc, levels);
    return make_array((void **)out, desc, levels == 0 ? 1 : levels, card, create_mipmap, desc);
}

CUresult cuArrayDestroy(CUarray array)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuArrayDestroy, array);
    hami_block *parts = hami_array_leaves((uintptr_t)array);
    HAMI_FREE(&hami_arrays, (uintptr_t)array, hami_array_left((uintptr_t)array, parts, BEHIND(cuArrayDestroy, array)));
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    if (!atomic_load(&hami_active))
        return BEHIND(cuMipmappedArrayDestroy, array);
    hami_block *parts = hami_array_leaves((uintptr_t)array);
    HAMI_FREE(&hami_arrays, (uintptr_t)array, hami_array_left((uintptr_t)array, parts, BEHIND(cuMipmappedArrayDestroy, array)));
}
