/* Virtual memory: handles and mappings, of which each holds what is behind it. See fake.h. */
#include <stdlib.h>

#include "alloc.h"

void fake_unhold(struct alloc *entry)
{
    if (--entry->holders == 0) {
        struct alloc *behind = entry->backing;
        fake_take(entry->card, -entry->bytes);
        fake_return(entry->key);
        fake_drop(entry);
        if (behind != NULL)
            fake_unhold(behind);
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
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *out = fake_address(0);
    fake_add((struct alloc){.key = *out, .bytes = on_card ? (int64_t)bytes : 0, .card = prop->location.id, .kind = A_VMM, .holders = 1});
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_live_alloc(handle, A_VMM);
    if (entry == NULL || fake_fails("cuMemRelease"))
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    fake_unhold(entry);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *address)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_mapping((CUdeviceptr)(uintptr_t)address);
    if (entry == NULL)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    entry->backing->holders++;
    *out = entry->backing->key;
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t alignment, CUdeviceptr hint, unsigned long long flags)
{
    (void)alignment, (void)hint, (void)flags;
    pthread_mutex_lock(&fake_lock);
    *out = fake_address((int64_t)bytes);
    return fake_leave(CUDA_SUCCESS);
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
    struct alloc *entry = fake_live_alloc(handle, A_VMM);
    if (entry == NULL)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    entry->holders++;
    fake_add((struct alloc){.key = address, .bytes = (int64_t)bytes, .card = entry->card, .kind = A_MAP, .backing = entry});
    return fake_leave(CUDA_SUCCESS);
}

pthread_mutex_t fake_unmapping = PTHREAD_MUTEX_INITIALIZER;

static void wait_for_card(void)
{
    if (getenv("FAKE_CUDA_UNMAP_WAITS") == NULL)
        return;
    pthread_mutex_lock(&fake_unmapping);
    cuCtxSynchronize();
    pthread_mutex_unlock(&fake_unmapping);
}

API CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    wait_for_card();
    pthread_mutex_lock(&fake_lock);
    for (CUdeviceptr at = address; at < address + bytes;) {
        struct alloc *entry = fake_live_alloc(at, A_MAP);
        if (entry == NULL)
            break;
        result = CUDA_SUCCESS;
        at += (CUdeviceptr)entry->bytes;
        fake_unhold(entry->backing);
        fake_drop(entry);
    }
    return fake_leave(result);
}

API CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const void *access, size_t count)
{
    (void)address, (void)bytes, (void)access, (void)count;
    return CUDA_SUCCESS;
}
