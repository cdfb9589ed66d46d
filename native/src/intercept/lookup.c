/*
 * dlsym and its kin, and the map from driver addresses to hooks. See intercept.h.
 *
 * Nothing here starts the library: a program that never touches CUDA pays one prefix test a dlsym.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hooks.h"
#include "intercept/elf.h"
#include "intercept/intercept.h"
#include "process/log.h"
#include "limits/policy.h"

#if defined(__clang__)
#define TAIL_CALL __attribute__((musttail)) return
#else
#define TAIL_CALL return /* a sibling call at -O2; what matters is that glibc sees the caller's return address */
#endif

#define EXPORT __attribute__((visibility("default")))

#define DENIED "(denied by libvgpu, which does not know it)"

enum { ADDRESSES = 8192 /* a power of two, four times the names of both drivers */ };

typedef struct {
    const char *low, *high; /* bounds of the mapped object, high is 0 while unknown */
} span;

static struct {
    const void *address;
    const hami_name *name;
} known[ADDRESSES];

static span spans[2]; /* the driver, NVML */
static void *handles[2];
static _Atomic int loaded[2];
static _Atomic unsigned long unknown_count;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t strict_asked = PTHREAD_ONCE_INIT;
static bool strict_set;

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

/* ---- names and addresses ---- */

const hami_name *hami_name_find(const char *name)
{
    unsigned int low = 0, high = hami_name_count;
    while (low < high) {
        const unsigned int middle = (low + high) / 2;
        const int order = strcmp(name, hami_names[middle].name);
        if (order == 0)
            return &hami_names[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Could a driver export this? Only such names ever load anything. */
static bool driver_like(const char *name)
{
    return (name[0] == 'c' && name[1] == 'u' && ((name[2] >= 'A' && name[2] <= 'Z') || name[2] == 'd')) ||
           strncmp(name, "nvml", 4) == 0;
}

static size_t home(const void *address)
{
    return (size_t)(((uintptr_t)address * 0x9e3779b97f4a7c15u) >> 40) & (ADDRESSES - 1);
}

static const hami_name *known_find(const void *address)
{
    for (size_t at = home(address); known[at].address != NULL; at = (at + 1) & (ADDRESSES - 1)) {
        if (known[at].address == address)
            return known[at].name;
    }
    return NULL;
}

/* Two names can share an entry point; the stricter treatment wins, except that nothing live is denied for a dead name. */
static void known_add(const void *address, const hami_name *name)
{
    static const int rank[] = {[HAMI_CHARGE] = 6, [HAMI_DISCHARGE] = 5, [HAMI_LIMIT] = 4, [HAMI_VIRTUALISE] = 3,
                               [HAMI_GATE] = 2,   [HAMI_NEUTRAL] = 1,   [HAMI_DENY] = 0};
    size_t at = home(address);
    while (known[at].address != NULL && known[at].address != address)
        at = (at + 1) & (ADDRESSES - 1);
    if (known[at].address == NULL || rank[name->kind] > rank[known[at].name->kind]) {
        known[at].name = name;
        known[at].address = address;
    }
}

static int driver_named(const char *name)
{
    if (strncmp(name, "libcuda.so", 10) == 0)
        return 0;
    return strncmp(name, "libnvidia-ml.so", 15) == 0 ? 1 : -1;
}

/* By what it calls itself, too: a link to it, or a copy, may be called anything. */
static int driver_of(const hami_elf_object *object)
{
    const int driver = driver_named(object->soname);
    return driver >= 0 ? driver : driver_named(object->file);
}

/* Reads a driver's entry points: they are used as long as the process lives. */
static bool learn(int driver, void *handle)
{
    static const char *const probes[] = {"cuInit", "nvmlInit_v2"};
    hami_elf_object object;
    void *probe = hami_dlsym(handle, probes[driver]);
    if (probe == NULL || !hami_elf_owner(probe, &object) || driver_of(&object) != driver)
        return false;
    spans[driver] = (span){.low = object.low, .high = object.high};
    for (unsigned int i = 0; i < hami_name_count; i++) {
        const hami_name *name = &hami_names[i];
        if ((name->name[0] == 'n') != (driver == 1))
            continue;
        void *address = hami_dlsym(handle, name->name);
        if (address == NULL || address == name->hook)
            continue;
        known_add(address, name);
        if (name->slot != HAMI_NO_SLOT)
            memcpy((char *)&hami_behind + name->slot, &address, sizeof address);
    }
    return true;
}

static bool load(int driver, bool only_if_there)
{
    static const char *const files[] = {"libcuda.so.1", "libnvidia-ml.so.1"};
    if (atomic_load_explicit(&loaded[driver], memory_order_acquire))
        return true;
    const int kept = errno;
    pthread_mutex_lock(&loading);
    if (!atomic_load_explicit(&loaded[driver], memory_order_relaxed)) {
        /* For good: who closes it as often as it is open, or once more, takes nothing away. */
        void *handle = hami_dlopen(files[driver], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE | (only_if_there ? RTLD_NOLOAD : 0));
        if (handle != NULL && learn(driver, handle)) {
            handles[driver] = handle;
            atomic_store_explicit(&loaded[driver], 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&loading);
    errno = kept;
    return atomic_load_explicit(&loaded[driver], memory_order_acquire) != 0;
}

bool hami_driver_load(void)
{
    return load(0, false);
}

bool hami_nvml_load(void)
{
    return load(1, false);
}

void *hami_driver_handle(int driver)
{
    return atomic_load_explicit(&loaded[driver], memory_order_acquire) ? handles[driver] : NULL;
}

static bool inside(int driver, const void *address)
{
    return atomic_load_explicit(&loaded[driver], memory_order_acquire) && (const char *)address >= spans[driver].low &&
           (const char *)address < spans[driver].high;
}

static void ask_strict(void)
{
    hami_policy policy;
    char why[200];
    const bool usable = hami_policy_load(&policy, why, sizeof why);
    strict_set = usable ? policy.strict : policy.from_file;
    if (usable)
        hami_log_level = policy.log_level;
}

/* An unreadable policy counts as strict. */
bool hami_strict(void)
{
    pthread_once(&strict_asked, ask_strict);
    return strict_set;
}

static void *denied(const char *name, const char *why)
{
    hami_log(HAMI_LOG_ERROR, "%s is denied: it is of %s, which would pass the limits", name, why);
    return NULL;
}

void *hami_translate(void *address, const char *name)
{
    if (address == NULL)
        return NULL;
    if (!inside(0, address) && !inside(1, address)) {
        hami_elf_object object;
        const int driver = hami_elf_owner(address, &object) ? driver_of(&object) : -1;
        if (driver < 0)
            return address;
        load(driver, true);
        if (!inside(driver, address)) /* hooks lead to one driver, the one that was there first */
            return denied(name, "a second driver");
    }
    const hami_name *entry = known_find(address);
    if (entry != NULL)
        return entry->hook != NULL ? entry->hook : address;
    atomic_fetch_add_explicit(&unknown_count, 1, memory_order_relaxed);
    const bool denied = hami_strict();
    hami_log(HAMI_LOG_WARN, "%s is unknown to this library%s", name, denied ? " and denied" : "");
    return denied ? NULL : address;
}

unsigned long hami_unknown_lookups(void)
{
    return atomic_load(&unknown_count);
}

CUresult hami_denied(const char *name)
{
    hami_log(HAMI_LOG_WARN, "%s is denied", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* ---- what programs call ---- */

/* RTLD_NEXT for a hooked name; NULL for all others, which the real lookup serves with the caller's own scope. */
static void *next(const void *caller, const char *name)
{
    const hami_name *entry = hami_name_find(name);
    void *found = entry == NULL || entry->hook == NULL ? NULL : hami_elf_next(caller, name);
    return found == NULL ? NULL : hami_translate(found, name);
}

/* A name of the driver's that nobody knows, found by RTLD_NEXT. */
static bool denied_next(const void *caller, const char *name)
{
    void *found = hami_name_find(name) == NULL ? hami_elf_next(caller, name) : NULL;
    return found != NULL && hami_translate(found, name) == NULL;
}

/* A name of the driver's in no object that we see. */
static bool elsewhere(const void *found, const char *name)
{
    hami_elf_object object;
    return !inside(0, found) && !inside(1, found) && hami_name_find(name) != NULL && !hami_elf_owner(found, &object);
}

/* What is denied is not found, and dlerror says so: who prints that must not print NULL. */
static void *given(void *handle, void *found, const char *name)
{
    void *hook = elsewhere(found, name) ? denied(name, "another name space") : hami_translate(found, name);
    return hook != NULL ? hook : real_dlsym()(handle, DENIED);
}

EXPORT void *dlsym(void *restrict handle, const char *restrict name)
{
    if (!driver_like(name))
        TAIL_CALL real_dlsym()(handle, name);
    if (handle == RTLD_NEXT) {
        void *found = next(__builtin_return_address(0), name);
        if (found != NULL)
            return found;
        if (denied_next(__builtin_return_address(0), name))
            return real_dlsym()(RTLD_DEFAULT, DENIED);
        TAIL_CALL real_dlsym()(handle, name);
    }
    void *found = hami_dlsym(handle, name);
    if (found != NULL)
        return given(handle, found, name);
    /* Again with the caller's own scope, which RTLD_DEFAULT means; also leaves dlerror as the caller expects it. */
    TAIL_CALL real_dlsym()(handle, name);
}

EXPORT void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version)
{
    if (!driver_like(name))
        TAIL_CALL real_dlvsym()(handle, name, version);
    void *found = handle == RTLD_NEXT ? next(__builtin_return_address(0), name) : real_dlvsym()(handle, name, version);
    if (found != NULL)
        return given(handle == RTLD_NEXT ? RTLD_DEFAULT : handle, found, name);
    TAIL_CALL real_dlvsym()(handle, name, version);
}

/* With RTLD_DEEPBIND a library would find the driver before us. Everything else, the search path too, stays as asked. */
EXPORT void *dlopen(const char *file, int mode)
{
    TAIL_CALL real_dlopen()(file, mode & ~RTLD_DEEPBIND);
}

/* A namespace of its own holds a driver of its own, in which nothing of ours stands before anything. */
EXPORT void *dlmopen(Lmid_t space, const char *file, int mode)
{
    if (space == LM_ID_BASE)
        TAIL_CALL real_dlmopen()(space, file, mode & ~RTLD_DEEPBIND);
    void *handle = real_dlmopen()(space, file, mode & ~RTLD_DEEPBIND);
    struct link_map *map = NULL;
    if (handle == NULL || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0)
        return handle;
    while (map->l_prev != NULL)
        map = map->l_prev;
    for (; map != NULL; map = map->l_next) {
        const char *slash = map->l_name == NULL ? NULL : strrchr(map->l_name, '/');
        const hami_elf_object object = {.file = slash == NULL ? "" : slash + 1, .soname = hami_elf_soname(map->l_addr, map->l_ld)};
        if (driver_of(&object) >= 0) {
            hami_log(HAMI_LOG_ERROR, "dlmopen of %s denied: it would load %s past the limits", file, map->l_name);
            dlclose(handle);
            return NULL;
        }
    }
    return handle;
}
