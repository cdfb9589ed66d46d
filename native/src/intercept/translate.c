/*
 * From driver addresses to hooks: where the drivers are, what they export, and what a lookup that found an address of theirs gives. See intercept.h.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hooks.h"
#include "intercept/translate.h"
#include "process/log.h"
#include "limits/policy.h"

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
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t policy_asked = PTHREAD_ONCE_INIT, forks_known = PTHREAD_ONCE_INIT;
static bool strict_set, limited_set;

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

/* A driver's entry points, as read: those of hami_names, NULL where there is none. */
typedef struct {
    span at;
    void *address[];
} exports;

/* Not under `loading`: it asks the loader, whose lock a thread may have that waits for us, in the constructor of what it opens. */
static bool read_exports(int driver, void *handle, exports *out)
{
    static const char *const probes[] = {"cuInit", "nvmlInit_v2"};
    hami_elf_object object;
    void *probe = hami_dlsym(handle, probes[driver]);
    if (probe == NULL || !hami_elf_owner(probe, &object) || driver_of(&object) != driver)
        return false;
    out->at = (span){.low = object.low, .high = object.high};
    for (unsigned int i = 0; i < hami_name_count; i++) {
        const hami_name *name = &hami_names[i];
        void *address = (name->name[0] == 'n') != (driver == 1) ? NULL : hami_dlsym(handle, name->name);
        out->address[i] = address == name->hook ? NULL : address;
    }
    return true;
}

/* They are used as long as the process lives. */
static void learn(int driver, const exports *from)
{
    spans[driver] = from->at;
    for (unsigned int i = 0; i < hami_name_count; i++) {
        const hami_name *name = &hami_names[i];
        void *address = from->address[i];
        if (address == NULL)
            continue;
        known_add(address, name);
        if (name->slot != HAMI_NO_SLOT)
            memcpy((char *)&hami_behind + name->slot, &address, sizeof address);
    }
}

/* Another thread of the parent may have had it, and what that had not read to its end is read anew. */
static void in_child(void)
{
    pthread_mutex_init(&loading, NULL);
}

static void know_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

static void note(int driver, void *handle, const exports *from)
{
    pthread_mutex_lock(&loading);
    if (!atomic_load_explicit(&loaded[driver], memory_order_relaxed)) {
        learn(driver, from);
        handles[driver] = handle;
        atomic_store_explicit(&loaded[driver], 1, memory_order_release);
    }
    pthread_mutex_unlock(&loading);
}

static bool load(int driver, bool only_if_there)
{
    static const char *const files[] = {"libcuda.so.1", "libnvidia-ml.so.1"};
    if (atomic_load_explicit(&loaded[driver], memory_order_acquire))
        return true;
    const int kept = errno;
    pthread_once(&forks_known, know_forks);
    /* For good: who closes it as often as it is open, or once more, takes nothing away. */
    void *handle = hami_dlopen(files[driver], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE | (only_if_there ? RTLD_NOLOAD : 0));
    exports *from = handle == NULL ? NULL : malloc(sizeof *from + hami_name_count * sizeof from->address[0]);
    if (from != NULL && read_exports(driver, handle, from))
        note(driver, handle, from);
    free(from);
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

static void ask_policy(void)
{
    hami_policy policy;
    char why[200];
    const bool usable = hami_policy_load(&policy, why, sizeof why);
    strict_set = usable ? policy.strict : policy.from_file;
    limited_set = !usable || !policy.off;
    if (usable)
        hami_log_level = policy.log_level;
}

/* An unreadable policy counts as strict. */
bool hami_strict(void)
{
    pthread_once(&policy_asked, ask_policy);
    return strict_set;
}

bool hami_limited(void)
{
    pthread_once(&policy_asked, ask_policy);
    return limited_set;
}

void *hami_denied_lookup(const char *name, const char *why)
{
    hami_log(HAMI_LOG_ERROR, "%s is denied: it is of %s, which would pass the limits", name, why);
    return NULL;
}

bool hami_in_drivers(const void *address)
{
    return inside(0, address) || inside(1, address);
}

void *hami_driver_symbol(const char *name)
{
    for (int driver = 0; driver < 2; driver++) {
        void *found = load(driver, true) ? hami_dlsym(handles[driver], name) : NULL;
        if (inside(driver, found)) /* and not in what it is linked to */
            return found;
    }
    return NULL;
}

void *hami_translate(void *address, const char *name)
{
    if (address == NULL)
        return NULL;
    if (!hami_in_drivers(address)) {
        hami_elf_object object;
        const int driver = hami_elf_owner(address, &object) ? driver_of(&object) : -1;
        if (driver < 0)
            return address;
        load(driver, true);
        if (!inside(driver, address)) /* hooks lead to one driver, the one that was there first */
            return hami_denied_lookup(name, "a second driver");
    }
    const hami_name *entry = known_find(address);
    if (entry != NULL)
        return entry->hook != NULL ? entry->hook : address;
    const bool denied = hami_strict();
    hami_log(HAMI_LOG_WARN, "%s is unknown to this library%s", name, denied ? " and denied" : "");
    return denied ? NULL : address;
}

CUresult hami_denied(const char *name)
{
    hami_log(HAMI_LOG_WARN, "%s is denied", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}
