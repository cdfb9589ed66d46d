/* Arrays, mipmaps, and memory of other interfaces. See fake.h. */
#include "alloc.h"

static int64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    const size_t height = d->height ? d->height : 1, depth = d->depth ? d->depth : 1;
    int64_t bytes = (int64_t)(d->width * height * depth * d->channels) * (d->format == 0x20 ? 4 : 1);
    if (levels > 1)
        bytes += bytes / 3;
    return (bytes + 65535) / 65536 * 65536;
}

enum { LAST = 16 };

static uint64_t ended[LAST]; /* handles, which are the next ones'; 0: none */

static uint64_t handle_for(int kind)
{
    for (int i = 0; i < LAST && kind == A_ARRAY; i++) {
        const uint64_t found = ended[i];
        ended[i] = 0;
        if (found != 0)
            return found;
    }
    return fake_address(0);
}

static CUresult array(uint64_t *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels, int kind)
{
    ENTER;
    const int64_t bytes = array_bytes(d, levels);
    const bool deferred = (d->flags & (CUDA_ARRAY3D_DEFERRED_MAPPING | CUDA_ARRAY3D_SPARSE)) != 0;
    if (!deferred && !fake_take(context->device, bytes))
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *out = handle_for(kind);
    fake_add((struct alloc){.key = *out, .bytes = bytes, .card = context->device, .kind = kind, .holders = deferred ? 0 : 1});
    return fake_leave(CUDA_SUCCESS);
}

static CUresult array_end(uint64_t key, int kind)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_live_alloc(key, kind);
    if (entry == NULL)
        return fake_leave(CUDA_ERROR_INVALID_HANDLE);
    if (entry->holders == 1)
        fake_take(entry->card, -entry->bytes);
    fake_drop(entry);
    fake_array_gone(key, NULL);
    for (int i = 0; i < LAST && kind == A_ARRAY; i++) {
        if (ended[i] == 0) {
            ended[i] = key;
            break;
        }
    }
    fake_leave(CUDA_SUCCESS);
    fake_end_slowly();
    return CUDA_SUCCESS;
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
    return fake_fails("cuArrayDestroy") ? CUDA_ERROR_INVALID_VALUE : array_end((uint64_t)(uintptr_t)handle, A_ARRAY);
}

API CUresult cuMipmappedArrayDestroy(CUmipmappedArray handle)
{
    return array_end((uint64_t)(uintptr_t)handle, A_MIPMAP);
}

static CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, uint64_t key, int kind)
{
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_live_alloc(key, kind);
    if (entry == NULL || entry->holders != 0)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    out->bytes = (size_t)entry->bytes;
    return fake_leave(CUDA_SUCCESS);
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
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *(uint64_t *)out = fake_address(0);
    fake_add((struct alloc){.key = *(uint64_t *)out, .bytes = (int64_t)desc->bytes, .card = context->device, .kind = A_EXTERNAL, .holders = 1});
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    return array_end((uint64_t)(uintptr_t)memory, A_EXTERNAL);
}
