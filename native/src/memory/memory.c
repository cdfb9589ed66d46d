/* Hooks of linear memory, of memory of other interfaces, and of the questions how much there is. */
#include "memory/held.h"

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
        hami_remember(&hami_buffers, *out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    hami_asked(card);
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
        hami_remember(&hami_buffers, *out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    hami_asked(card);
    return result;
}

/* The pitch is the driver's choice: reserve for a row rounded up to 512, then keep what it came to. */
CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width_bytes, size_t height, unsigned int element_bytes)
{
    hami_card *card = hami_card_now();
    size_t guess, actual;
    if (card == NULL || out == NULL || pitch == NULL)
        return BEHIND(cuMemAllocPitch_v2, out, pitch, width_bytes, height, element_bytes);
    if (__builtin_add_overflow(width_bytes, (size_t)511, &guess) || __builtin_mul_overflow(guess / 512 * 512, height, &guess))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const int64_t charge = hami_linear_bytes(guess);
    if (!hami_take(card, HAMI_BUFFER, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = BEHIND(cuMemAllocPitch_v2, out, pitch, width_bytes, height, element_bytes);
    if (result != CUDA_SUCCESS || __builtin_mul_overflow(*pitch, height, &actual)) {
        hami_give(card, HAMI_BUFFER, charge);
        hami_asked(card);
        return result;
    }
    const int64_t final = hami_linear_bytes(actual);
    if (final > charge && !hami_take(card, HAMI_BUFFER, final - charge)) {
        BEHIND(cuMemFree_v2, *out);
        hami_give(card, HAMI_BUFFER, charge);
        hami_asked(card);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (final > charge)
        hami_asked(card);
    if (final < charge)
        hami_give(card, HAMI_BUFFER, charge - final);
    hami_remember(&hami_buffers, *out, card, HAMI_BUFFER, final);
    hami_asked(card);
    return result;
}

/* Addresses we do not know (a pool's, a capture's, imported ones) are as legal here: the driver decides. */
CUresult cuMemFree_v2(CUdeviceptr address)
{
    HAMI_FREE(&hami_buffers, address, BEHIND(cuMemFree_v2, address));
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
        hami_remember(&hami_arrays, (uintptr_t)*out, card, HAMI_BUFFER, charge);
    else
        hami_give(card, HAMI_BUFFER, charge);
    hami_asked(card);
    return result;
}

CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    HAMI_FREE(&hami_arrays, (uintptr_t)memory, BEHIND(cuDestroyExternalMemory, memory));
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
        const hami_slice slice = hami_slice_of(card);
        const size_t left = (size_t)(slice.limit - slice.used);
        real_total = (size_t)slice.limit;
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
