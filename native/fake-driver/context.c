/* Contexts, which is current, and modules: all that is taken without asking for bytes. See fake.h. */
#include <elf.h>
#include <stdio.h>
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

/* FAKE_CUDA_SLOW_MS: how long it takes to make a context or load a module whose memory is taken already. */
static void take_time(void)
{
    const char *ms = getenv("FAKE_CUDA_SLOW_MS");
    if (ms != NULL)
        usleep((useconds_t)(1000 * atoi(ms)));
}

void fake_end_slowly(void)
{
    const char *ms = getenv("FAKE_CUDA_SLOW_END_MS");
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
        take_time();
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

/* ---- modules: a cubin has the global data of its sections, an image "data <MiB>" so much, any other none ---- */

static int64_t global_bytes(const char *image)
{
    const Elf64_Ehdr *head = (const void *)image;
    const Elf64_Shdr *sections = (const void *)(image + head->e_shoff);
    for (int i = 0; i < head->e_shnum; i++) {
        if (strcmp(image + sections[head->e_shstrndx].sh_offset + sections[i].sh_name, ".nv.global") == 0)
            return (int64_t)sections[i].sh_size;
    }
    return 0;
}

static fake_module *unloaded; /* likewise */

static CUresult take_late(fake_module *module)
{
    pthread_mutex_lock(&fake_lock);
    const bool fits = fake_take(module->card, module->late);
    if (fits) {
        module->bytes += module->late;
        module->late = 0;
    }
    return fake_leave(fits ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

static CUresult load(void **out, const void *image, bool late)
{
    long long mib = 0;
    if (current == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (strncmp(image, "data ", 5) == 0)
        sscanf((const char *)image + 5, "%lld", &mib);
    pthread_mutex_lock(&fake_lock);
    fake_module *module = unloaded != NULL ? unloaded : calloc(1, sizeof *module);
    unloaded = module->next;
    *module = (fake_module){0};
    module->bytes = 2 * MIB + (memcmp(image, ELFMAG, SELFMAG) == 0 ? global_bytes(image) : mib * MIB);
    module->card = current->device;
    if (late) {
        module->late = module->bytes;
        module->bytes = 0;
    }
    const bool fits = fake_take(module->card, module->bytes);
    if (!fits) {
        module->next = unloaded;
        unloaded = module;
    }
    pthread_mutex_unlock(&fake_lock);
    if (!fits)
        return CUDA_ERROR_OUT_OF_MEMORY;
    take_time();
    *out = module;
    return CUDA_SUCCESS;
}

static fake_function *unused; /* of modules that were unloaded: their places are the next ones' */

static CUresult unload(fake_module *module)
{
    pthread_mutex_lock(&fake_lock);
    fake_take(module->card, -module->bytes);
    for (fake_function *each = module->functions, *next; each != NULL; each = next) {
        next = each->next;
        each->next = unused;
        unused = each;
    }
    module->next = unloaded;
    unloaded = module;
    pthread_mutex_unlock(&fake_lock);
    fake_end_slowly();
    return CUDA_SUCCESS;
}

API CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    return load((void **)out, image, false);
}

API CUresult cuModuleUnload(CUmodule module)
{
    if (fake_fails("cuModuleUnload"))
        return CUDA_ERROR_INVALID_VALUE;
    return unload((fake_module *)module);
}

API CUresult cuLibraryLoadData(CUlibrary *out, const void *code, int *jit, void **jit_values, unsigned int jit_count,
                               int *options, void **values, unsigned int count)
{
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load((void **)out, code, getenv("FAKE_CUDA_LAZY") != NULL);
}

API CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    *out = (CUmodule)(void *)library;
    return take_late((fake_module *)(void *)library);
}

API CUresult cuLibraryUnload(CUlibrary library)
{
    return unload((fake_module *)(void *)library);
}

API CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    if (module == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    fake_module *of = (fake_module *)module;
    pthread_mutex_lock(&fake_lock);
    fake_function *function = unused != NULL ? unused : calloc(1, sizeof *function);
    unused = function->next;
    *function = (fake_function){.next = of->functions};
    of->functions = function;
    pthread_mutex_unlock(&fake_lock);
    snprintf(function->name, sizeof function->name, "%s", name);
    if (sscanf(name, "local_%d", &function->local) != 1)
        function->local = 0;
    *out = function;
    return CUDA_SUCCESS;
}

/* FAKE_CUDA_LAZY: libraries are loaded when their module is asked for, functions when they are asked or launched. */
API CUresult cuFuncIsLoaded(int *state, CUfunction function)
{
    *state = getenv("FAKE_CUDA_LAZY") == NULL || ((const fake_function *)function)->loaded;
    return CUDA_SUCCESS;
}

API CUresult cuFuncGetAttribute(int *out, int attribute, CUfunction function)
{
    fake_function *mine = (fake_function *)function;
    mine->loaded = true;
    *out = attribute == 3 ? mine->local : 1;
    return CUDA_SUCCESS;
}

/* A kernel of a library is its function. */
API CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name)
{
    return cuModuleGetFunction((CUfunction *)out, (CUmodule)library, name);
}

API CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel)
{
    *out = (CUfunction)kernel;
    return CUDA_SUCCESS;
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
