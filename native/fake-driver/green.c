/* Green contexts, which hold their card's primary one, and further references to a context. See fake.h. */
#include <stdlib.h>

#include "fake.h"

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuCtxDestroy_v2(CUcontext context);

typedef struct CUgreenCtx_st {
    fake_context inner;
    struct CUgreenCtx_st *next;
} fake_green;

static fake_green *ended; /* their places are the next ones' */

API CUresult cuGreenCtxCreate(CUgreenCtx *out, void *desc, CUdevice device, unsigned int flags)
{
    (void)desc, (void)flags;
    CUcontext primary;
    const CUresult result = cuDevicePrimaryCtxRetain(&primary, device);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&fake_lock);
    fake_green *green = ended != NULL ? ended : calloc(1, sizeof *green);
    ended = green->next;
    *green = (fake_green){.inner = {.device = device}};
    *out = green;
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuCtxFromGreenCtx(CUcontext *out, CUgreenCtx green)
{
    *out = &((fake_green *)green)->inner;
    return CUDA_SUCCESS;
}

API CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    const CUdevice device = ((fake_green *)green)->inner.device;
    if (fake_fails("cuGreenCtxDestroy"))
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&fake_lock);
    ((fake_green *)green)->next = ended;
    ended = (fake_green *)green;
    fake_leave(CUDA_SUCCESS);
    return cuDevicePrimaryCtxRelease_v2(device);
}

API CUresult cuCtxAttach(CUcontext *out, unsigned int flags)
{
    (void)flags;
    if (fake_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    fake_current()->references++;
    *out = fake_current();
    return CUDA_SUCCESS;
}

API CUresult cuCtxDetach(CUcontext context)
{
    if (context == NULL || context != fake_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context->references == 0)
        return cuCtxDestroy_v2(context);
    context->references--;
    return CUDA_SUCCESS;
}
