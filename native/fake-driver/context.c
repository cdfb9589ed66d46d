/* Contexts, and which is current. See fake.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

enum { CONTEXT_MIB = 480 };
#define MIB ((int64_t)1 << 20)

static fake_context *primaries[SIM_LIVE_CARDS];
static int primary_users[SIM_LIVE_CARDS];
static _Atomic bool primary_made[SIM_LIVE_CARDS]; /* and not still being made */
static __thread fake_context *current;

fake_context *fake_current(void)
{
    return current;
}

void fake_take_time(void)
{
    const char *ms = getenv("FAKE_CUDA_SLOW_MS");
    if (ms != NULL)
        usleep((useconds_t)(1000 * atoi(ms)));
}

void fake_end_slowly(void)
{
    const char *ms = getenv("FAKE_CUDA_SLOW_END_MS"), *fd = getenv("FAKE_CUDA_ENDS_TO");
    if (fd != NULL && write(atoi(fd), "", 1) != 1)
        abort();
    if (ms != NULL)
        usleep((useconds_t)(1000 * atoi(ms)));
}

bool fake_fails(const char *name)
{
    const char *failing = getenv("FAKE_CUDA_FAILS");
    return failing != NULL && strcmp(failing, name) == 0;
}

static fake_context *ended; /* their places are the next ones' */

static CUresult make_context(fake_context **out, CUdevice device)
{
    fake_context *context = ended != NULL ? ended : calloc(1, sizeof *context);
    ended = context->below;
    *context = (fake_context){0};
    context->device = device;
    context->bytes = CONTEXT_MIB * MIB;
    context->limits[CU_LIMIT_STACK_SIZE] = 1024;
    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = (size_t)MIB;
    context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = (size_t)(8 * MIB);
    if (!fake_take(device, context->bytes)) {
        context->below = ended;
        ended = context;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = context;
    return CUDA_SUCCESS;
}

static void end_context(fake_context *context)
{
    fake_take(context->device, -context->bytes);
    fake_host_gone(context, NULL);
    fake_streams_gone(context);
    fake_array_gone(0, context);
    if (current == context)
        current = NULL;
    context->below = ended;
    ended = context;
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    NEED_CARD(device);
    *flags = 0;
    *active = primaries[device] != NULL && primary_made[device];
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    NEED_CARD(device);
    pthread_mutex_lock(&fake_lock);
    const bool first = primaries[device] == NULL;
    const CUresult result = first ? make_context(&primaries[device], device) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        primary_users[device]++;
        *out = primaries[device];
    }
    pthread_mutex_unlock(&fake_lock);
    if (first) {
        fake_take_time();
        primary_made[device] = true;
    }
    return result;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    NEED_CARD(device);
    if (primary_users[device] == 1)
        cuCtxSynchronize();
    pthread_mutex_lock(&fake_lock);
    const bool there = primaries[device] != NULL;
    if (there && --primary_users[device] == 0) {
        end_context(primaries[device]);
        primaries[device] = NULL;
        primary_made[device] = false;
    }
    pthread_mutex_unlock(&fake_lock);
    fake_end_slowly();
    return there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    NEED_CARD(device);
    cuCtxSynchronize();
    pthread_mutex_lock(&fake_lock);
    if (primaries[device] != NULL)
        end_context(primaries[device]);
    primaries[device] = NULL;
    primary_made[device] = false;
    primary_users[device] = 0;
    pthread_mutex_unlock(&fake_lock);
    return CUDA_SUCCESS;
}

API CUresult cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice device)
{
    (void)flags;
    NEED_CARD(device);
    pthread_mutex_lock(&fake_lock);
    fake_context *context = NULL;
    const CUresult result = make_context(&context, device);
    if (result == CUDA_SUCCESS) {
        context->below = current;
        current = context;
        *out = context;
    }
    pthread_mutex_unlock(&fake_lock);
    return result;
}

API CUresult cuCtxCreate_v4(CUcontext *out, void *params, unsigned int flags, CUdevice device)
{
    (void)params;
    return cuCtxCreate_v2(out, flags, device);
}

API CUresult cuGLCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice device)
{
    return cuCtxCreate_v2(out, flags, device);
}

API CUresult cuVDPAUCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice device, unsigned int vdp, void *lookup)
{
    (void)vdp, (void)lookup;
    return cuCtxCreate_v2(out, flags, device);
}

API CUresult cuCtxDestroy_v2(CUcontext context)
{
    if (context == NULL || fake_fails("cuCtxDestroy_v2"))
        return CUDA_ERROR_INVALID_CONTEXT;
    cuCtxSynchronize();
    pthread_mutex_lock(&fake_lock);
    fake_context *below = context->below;
    const bool was_current = current == context;
    end_context(context);
    if (was_current)
        current = below;
    pthread_mutex_unlock(&fake_lock);
    fake_end_slowly();
    return CUDA_SUCCESS;
}

API CUresult cuCtxSetCurrent(CUcontext context)
{
    current = context;
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(CUcontext *out)
{
    *out = current;
    return CUDA_SUCCESS;
}

API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    context->below = current;
    current = context;
    return CUDA_SUCCESS;
}

API CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    if (current == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (out != NULL)
        *out = current;
    current = current->below;
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetDevice(CUdevice *out)
{
    if (current == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *out = current->device;
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetLimit(size_t *value, int limit)
{
    if (current == NULL || limit < 0 || limit > 15)
        return CUDA_ERROR_INVALID_VALUE;
    *value = current->limits[limit];
    return CUDA_SUCCESS;
}

API CUresult cuCtxSetLimit(int limit, size_t value)
{
    if (current == NULL || limit < 0 || limit > 15)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    const int64_t more = limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE
                             ? (int64_t)value - (int64_t)current->limits[limit]
                             : 0;
    const char *most = getenv("FAKE_CUDA_STACK_MOST");
    if (limit == CU_LIMIT_STACK_SIZE && most != NULL && value > (size_t)atoll(most)) {
        pthread_mutex_unlock(&fake_lock);
        return CUDA_ERROR_INVALID_VALUE;
    }
    const bool fits = fake_take(current->device, more);
    if (fits) {
        current->bytes += more;
        current->limits[limit] = value;
    }
    pthread_mutex_unlock(&fake_lock);
    return fits ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

enum { THREADS = 132 * 2048, FIRST_BYTES = 1024 };

bool fake_local(const fake_function *function)
{
    const int64_t more = function->local - FIRST_BYTES - current->local;
    if (more <= 0)
        return true;
    if (!fake_take(current->device, more * THREADS))
        return false;
    current->local += more;
    current->bytes += more * THREADS;
    return true;
}
