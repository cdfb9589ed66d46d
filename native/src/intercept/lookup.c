/*
 * dlsym and its kin. See intercept.h.
 *
 * Nothing here starts the library: a program that never touches CUDA pays a look at the first letters of the name a dlsym.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hooks.h"
#include "intercept/translate.h"
#include "process/log.h"

#if defined(__clang__)
#define TAIL_CALL __attribute__((musttail)) return
#else
#define TAIL_CALL return /* a sibling call at -O2; what matters is that glibc sees the caller's return address */
#endif

#define EXPORT __attribute__((visibility("default")))

#define DENIED "(denied by libvgpu, which does not know it)"
#define DENIED_SPACE "(denied by libvgpu: a name space of its own would pass the limits)"

/* ---- the real ones ---- */

typedef void *(*dlsym_t)(void *, const char *);
typedef void *(*dlvsym_t)(void *, const char *, const char *);
typedef void *(*dlopen_t)(const char *, int);
typedef void *(*dlmopen_t)(Lmid_t, const char *, int);

static void *find_real(const char *name)
{
    void *real = hami_elf_first("libc.so.6", name); /* glibc 2.34 and later */
    if (real == NULL)
        real = hami_elf_first("libdl.so.2", name);
    if (real == NULL)
        real = hami_elf_first("libc-", name); /* libc-2.31.so */
    if (real == NULL)
        real = hami_elf_first("libdl-", name);
    if (real == NULL) {
        hami_say(HAMI_LOG_ERROR, "no %s in this C library: only glibc is supported", name);
        abort();
    }
    return real;
}

#define REAL(name)                                                                \
    static name##_t real_##name(void)                                             \
    {                                                                             \
        static _Atomic(void *) found;                                             \
        void *real = atomic_load_explicit(&found, memory_order_relaxed);          \
        if (real == NULL) {                                                       \
            real = find_real(#name);                                              \
            atomic_store_explicit(&found, real, memory_order_relaxed);            \
        }                                                                         \
        return (name##_t)real;                                                    \
    }
REAL(dlsym)
REAL(dlvsym)
REAL(dlopen)
REAL(dlmopen)

void *hami_dlsym(void *handle, const char *name)
{
    return real_dlsym()(handle, name);
}

void *hami_dlopen(const char *file, int mode)
{
    return real_dlopen()(file, mode);
}

/* ---- what programs call ---- */

/* Could a driver export this? Only such names ever load anything. */
static bool driver_like(const char *name)
{
    return (name[0] == 'c' && name[1] == 'u' && ((name[2] >= 'A' && name[2] <= 'Z') || name[2] == 'd')) ||
           strncmp(name, "nvml", 4) == 0;
}

/* ---- lookups of lookups ---- */

static const struct {
    const char *name;
    void *hook;
} own[] = {{"dlsym", (void *)dlsym}, {"dlvsym", (void *)dlvsym}, {"dlopen", (void *)dlopen}, {"dlmopen", (void *)dlmopen}};

/*
 * Whoever asks the C library for its dlsym, by a handle or a version, as programs do that stand before it themselves, would get from that every
 * driver as it is. NULL: another's was found, or it is another name: for those nothing is called here, since the first come before a sanitizer is
 * ready for that. `version` NULL: any.
 */
static void *instead_of_real(void *handle, const char *name, const char *version, const void *caller)
{
    size_t i = 0;
    while (i < sizeof own / sizeof own[0] && !hami_elf_same(own[i].name, name))
        i++;
    if (i == sizeof own / sizeof own[0])
        return NULL;
    const void *found = handle == RTLD_NEXT ? hami_elf_next(caller, name)
                        : version == NULL   ? hami_dlsym(handle, name)
                                            : real_dlvsym()(handle, name, version);
    /* Where nothing comes after the caller in the loader's order, the C library may in that of RTLD_NEXT. */
    return found == find_real(name) || (found == NULL && handle == RTLD_NEXT) ? own[i].hook : NULL;
}

/* ---- lookups of drivers ---- */

/*
 * Of what is opened after the start the loader's order is not that of RTLD_NEXT: where nothing comes after the caller, something of the driver's may all
 * the same, if it is there.
 */
static void *next_or_drivers(const void *caller, const char *name)
{
    void *found = hami_elf_next(caller, name);
    return found != NULL ? found : hami_driver_symbol(name);
}

/* RTLD_NEXT for a hooked name; NULL for all others, which the real lookup serves with the caller's own scope. */
static void *next(const void *caller, const char *name)
{
    const hami_name *entry = hami_name_find(name);
    void *found = entry == NULL || entry->hook == NULL ? NULL : next_or_drivers(caller, name);
    return found == NULL ? NULL : hami_translate(found, name);
}

/* A name of the driver's that nobody knows, found in a scope that is not ours: after the caller, or in its own. */
static bool denied_there(void *handle, const void *caller, const char *name)
{
    void *found = NULL;
    if (hami_name_find(name) == NULL && (handle == RTLD_NEXT || handle == RTLD_DEFAULT))
        found = handle == RTLD_NEXT ? next_or_drivers(caller, name) : hami_driver_symbol(name);
    return found != NULL && hami_translate(found, name) == NULL;
}

/* A name of the driver's in no object that we see. */
static bool elsewhere(const void *found, const char *name)
{
    hami_elf_object object;
    return !hami_in_drivers(found) && hami_name_find(name) != NULL && !hami_elf_owner(found, &object);
}

/* What is denied is not found, and dlerror says so: who prints that must not print NULL. */
static void *given(void *handle, void *found, const char *name)
{
    void *hook = elsewhere(found, name) ? hami_denied_lookup(name, "another name space") : hami_translate(found, name);
    return hook != NULL ? hook : real_dlsym()(handle, DENIED);
}

EXPORT void *dlsym(void *restrict handle, const char *restrict name)
{
    if (!driver_like(name)) {
        void *hook = instead_of_real(handle, name, NULL, __builtin_return_address(0));
        if (hook != NULL)
            return hook;
        TAIL_CALL real_dlsym()(handle, name);
    }
    void *found = handle == RTLD_NEXT ? next(__builtin_return_address(0), name) : hami_dlsym(handle, name);
    if (found != NULL)
        return handle == RTLD_NEXT ? found : given(handle, found, name);
    if (denied_there(handle, __builtin_return_address(0), name))
        return real_dlsym()(RTLD_DEFAULT, DENIED);
    /* Again with the caller's own scope, which RTLD_DEFAULT means; also leaves dlerror as the caller expects it. */
    TAIL_CALL real_dlsym()(handle, name);
}

EXPORT void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version)
{
    if (!driver_like(name)) {
        void *hook = instead_of_real(handle, name, version, __builtin_return_address(0));
        if (hook != NULL)
            return hook;
        TAIL_CALL real_dlvsym()(handle, name, version);
    }
    void *found = handle == RTLD_NEXT ? next(__builtin_return_address(0), name) : real_dlvsym()(handle, name, version);
    if (found != NULL)
        return given(handle == RTLD_NEXT ? RTLD_DEFAULT : handle, found, name);
    if (denied_there(handle, __builtin_return_address(0), name))
        return real_dlsym()(RTLD_DEFAULT, DENIED);
    TAIL_CALL real_dlvsym()(handle, name, version);
}

/* With RTLD_DEEPBIND a library would find the driver before us. Everything else, the search path too, stays as asked. */
EXPORT void *dlopen(const char *file, int mode)
{
    TAIL_CALL real_dlopen()(file, mode & ~RTLD_DEEPBIND);
}

/*
 * In a name space of its own nothing of ours stands before anything, and whatever is opened there may open a driver of its own, be it before this
 * returns. Where there are no limits nobody minds.
 */
EXPORT void *dlmopen(Lmid_t space, const char *file, int mode)
{
    if (space == LM_ID_BASE)
        TAIL_CALL real_dlmopen()(space, file, mode & ~RTLD_DEEPBIND);
    if (!hami_limited())
        TAIL_CALL real_dlmopen()(space, file, mode);
    hami_denied_lookup(file, "a name space of its own");
    return real_dlmopen()(LM_ID_BASE, DENIED_SPACE, RTLD_LAZY); /* so that dlerror says why */
}
