/* Multicast objects, logical endpoints and parts of sparse arrays, which hold the memory that is bound to them. See fake.h. */
#include <string.h>

#include "alloc.h"

enum { BINDINGS = 256 };

static struct {
    uint64_t of; /* object or array; 0: free */
    uint64_t where[5];
    struct alloc *behind;
    const fake_context *context; /* of the array; NULL: an object is of none */
} bindings[BINDINGS];

static void let_go(uint64_t of, const uint64_t *where)
{
    for (int i = 0; i < BINDINGS; i++) {
        if (bindings[i].of == of && memcmp(bindings[i].where, where, sizeof bindings[i].where) == 0) {
            bindings[i].of = 0;
            fake_unhold(bindings[i].behind);
        }
    }
}

void fake_array_gone(uint64_t array, const fake_context *context)
{
    for (int i = 0; i < BINDINGS; i++) {
        if (bindings[i].of != 0 && bindings[i].context != NULL && (bindings[i].of == array || bindings[i].context == context)) {
            bindings[i].of = 0;
            fake_unhold(bindings[i].behind);
        }
    }
}

static void hold(uint64_t of, const uint64_t *where, struct alloc *behind, const fake_context *context)
{
    for (int i = 0; i < BINDINGS; i++) {
        if (bindings[i].of == 0) {
            behind->holders++;
            bindings[i].of = of;
            memcpy(bindings[i].where, where, sizeof bindings[i].where);
            bindings[i].behind = behind;
            bindings[i].context = context;
            return;
        }
    }
}

API CUresult cuMulticastCreate(CUmemGenericAllocationHandle *out, const void *prop)
{
    (void)prop;
    pthread_mutex_lock(&fake_lock);
    *out = fake_address(0);
    fake_add((struct alloc){.key = *out, .kind = A_VMM, .holders = 1});
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMulticastBindMem(CUmemGenericAllocationHandle object, size_t offset, CUmemGenericAllocationHandle handle, size_t from,
                                size_t bytes, unsigned long long flags)
{
    (void)from, (void)bytes, (void)flags;
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_live_alloc(handle, A_VMM);
    if (entry != NULL)
        hold(object, (const uint64_t[5]){offset}, entry, NULL);
    return fake_leave(entry == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
}

/* Exactly what was bound. */
API CUresult cuMulticastUnbind(CUmemGenericAllocationHandle object, CUdevice device, size_t offset, size_t bytes)
{
    (void)device, (void)bytes;
    pthread_mutex_lock(&fake_lock);
    let_go(object, (const uint64_t[5]){offset});
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemMapArrayAsync(CUarrayMapInfo *parts, unsigned int count, CUstream stream)
{
    (void)stream;
    pthread_mutex_lock(&fake_lock);
    for (unsigned int i = 0; i < count; i++) {
        uint64_t where[5] = {(uint64_t)parts[i].part_type};
        struct alloc *entry = fake_live_alloc(parts[i].handle, A_VMM);
        memcpy(&where[1], parts[i].part, sizeof parts[i].part);
        if (parts[i].operation == CU_MEM_OPERATION_TYPE_UNMAP || entry != NULL)
            let_go(parts[i].array, where);
        if (parts[i].operation == CU_MEM_OPERATION_TYPE_MAP && entry != NULL)
            hold(parts[i].array, where, entry, fake_current());
    }
    return fake_leave(CUDA_SUCCESS);
}

/* ---- logical endpoints, by their numbers ---- */

enum { ENDPOINT = 1 }; /* so that a number is no object's, nor an array's */

static uint64_t named(uint32_t id)
{
    return (uint64_t)id << 1 | ENDPOINT;
}

static CUresult bind_endpoint(uint32_t id, uint64_t offset, struct alloc *behind)
{
    if (behind == NULL)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    hold(named(id), (const uint64_t[5]){offset}, behind, NULL);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuLogicalEndpointBindMem(uint32_t id, CUdevice device, uint64_t offset, CUmemGenericAllocationHandle handle, uint64_t from,
                                      uint64_t bytes, unsigned long long flags)
{
    (void)device, (void)from, (void)bytes, (void)flags;
    pthread_mutex_lock(&fake_lock);
    return bind_endpoint(id, offset, fake_live_alloc(handle, A_VMM));
}

API CUresult cuLogicalEndpointBindAddr(uint32_t id, CUdevice device, uint64_t offset, void *address, uint64_t bytes,
                                       unsigned long long flags)
{
    (void)device, (void)bytes, (void)flags;
    pthread_mutex_lock(&fake_lock);
    const struct alloc *mapping = fake_mapping((CUdeviceptr)(uintptr_t)address);
    return bind_endpoint(id, offset, mapping == NULL ? NULL : mapping->backing);
}

API CUresult cuLogicalEndpointUnbind(uint32_t id, CUdevice device, uint64_t offset, uint64_t bytes)
{
    (void)device;
    pthread_mutex_lock(&fake_lock);
    for (int i = 0; i < BINDINGS; i++) {
        if (bindings[i].of == named(id) && bindings[i].where[0] >= offset && bindings[i].where[0] < offset + bytes)
            let_go(named(id), bindings[i].where);
    }
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuLogicalEndpointDestroy(uint32_t id)
{
    return cuLogicalEndpointUnbind(id, 0, 0, UINT64_MAX);
}
