/*
 * Modules, libraries and their functions. See fake.h.
 *
 * A cubin has the global data of its sections, an image "data <MiB>" so much, any other none.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

#define MIB ((int64_t)1 << 20)

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

static fake_module *unloaded; /* their places are the next ones' */

static CUresult take_late(fake_module *module)
{
    pthread_mutex_lock(&fake_lock);
    if (module->late > 0 && fake_forbidden())
        return fake_leave(FAKE_FORBIDDEN);
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
    const fake_context *current = fake_current();
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
    fake_take_time();
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
    if (fake_fails("cuLibraryUnload"))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    const bool forbidden = fake_forbidden();
    pthread_mutex_unlock(&fake_lock);
    if (forbidden)
        return FAKE_FORBIDDEN;
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
    int loaded = 0;
    cuFuncIsLoaded(&loaded, function);
    pthread_mutex_lock(&fake_lock);
    const bool forbidden = !loaded && fake_forbidden();
    pthread_mutex_unlock(&fake_lock);
    if (forbidden)
        return FAKE_FORBIDDEN;
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
