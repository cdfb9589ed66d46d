/* Cards, contexts, modules, lookups. See fake.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

enum { CONTEXT_MIB = 480 };
#define MIB ((int64_t)1 << 20)

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
fake_card fake_cards[SIM_LIVE_CARDS];
int fake_card_count;
sim_live *fake_live;

static bool started;
static sim_live_process *self;
static fake_context *primaries[SIM_LIVE_CARDS];
static int primary_users[SIM_LIVE_CARDS];
static __thread fake_context *current;

int64_t fake_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int fake_stub(const char *name)
{
    if (getenv("FAKE_CUDA_TRACE") != NULL)
        fprintf(stderr, "simulated CUDA: %s is not simulated\n", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

bool fake_ready(void)
{
    return started;
}

sim_live_process *fake_self(void)
{
    return self;
}

fake_context *fake_current(void)
{
    return current;
}

/* ---- start ---- */

static void read_cards(const char *path)
{
    char line[512];
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && fake_card_count < SIM_LIVE_CARDS) {
        fake_card *card = fake_card_count == 0 ? NULL : &fake_cards[fake_card_count - 1];
        long long total = 0, kept = 0;
        if (strcmp(line, "card\n") == 0 || strncmp(line, "card ", 5) == 0)
            fake_card_count++;
        else if (card != NULL && strncmp(line, "uuid ", 5) == 0)
            sscanf(line + 5, "%95s", card->uuid);
        else if (card != NULL && sscanf(line, "memory %lld %lld", &total, &kept) == 2)
            card->total = total - kept;
    }
    if (file != NULL)
        fclose(file);
    if (fake_card_count == 0) {
        const char *count = getenv("FAKE_CUDA_CARDS");
        fake_card_count = count == NULL ? 1 : atoi(count);
        for (int i = 0; i < fake_card_count; i++) {
            snprintf(fake_cards[i].uuid, sizeof fake_cards[i].uuid, "GPU-00000000-0000-0000-0000-%012d", i + 1);
            fake_cards[i].total = 81559 * MIB;
        }
    }
}

static bool map_live(const char *cards)
{
    char path[512];
    if (cards != NULL)
        snprintf(path, sizeof path, "%s.live", cards);
    else
        snprintf(path, sizeof path, "%s", getenv("FAKE_CUDA_LIVE") ? getenv("FAKE_CUDA_LIVE") : "");
    const int fd = path[0] == '\0' ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0 && ftruncate(fd, sizeof(sim_live)) != 0) {
        close(fd);
        return false;
    }
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(NULL, sizeof(sim_live), PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0)
        close(fd);
    fake_live = memory == MAP_FAILED ? NULL : memory;
    if (fake_live != NULL)
        atomic_store(&fake_live->magic, SIM_LIVE_MAGIC);
    return fake_live != NULL;
}

static bool gone(int pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static bool enter_self(void)
{
    for (int i = 0; i < SIM_LIVE_PROCESSES; i++) {
        sim_live_process *entry = &fake_live->processes[i];
        int32_t pid = atomic_load(&entry->pid);
        if (pid != 0 && pid != (int32_t)getpid() && !gone(pid))
            continue;
        if (!atomic_compare_exchange_strong(&entry->pid, &pid, (int32_t)getpid()))
            continue;
        for (int card = 0; card < SIM_LIVE_CARDS; card++) {
            atomic_store(&entry->bytes[card], 0);
            atomic_store(&entry->busy_ns[card], 0);
        }
        self = entry;
        return true;
    }
    return false;
}

static void leave(void)
{
    if (self != NULL && atomic_load(&self->pid) == (int32_t)getpid())
        atomic_store(&self->pid, 0);
}

API CUresult cuInit(unsigned int flags)
{
    CUresult result = flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    if (!started && result == CUDA_SUCCESS) {
        const char *cards = getenv("HAMI_SIM_CARDS");
        read_cards(cards);
        started = map_live(cards) && enter_self();
        result = started ? CUDA_SUCCESS : 999;
        atexit(leave);
    }
    pthread_mutex_unlock(&fake_lock);
    return result;
}

bool fake_take(int card, int64_t bytes)
{
    int64_t held = 0;
    for (int i = 0; i < SIM_LIVE_PROCESSES && bytes > 0; i++) {
        sim_live_process *entry = &fake_live->processes[i];
        const int32_t pid = atomic_load_explicit(&entry->pid, memory_order_relaxed);
        if (pid != 0 && (atomic_load(&entry->bytes[card]) == 0 || !gone(pid)))
            held += atomic_load_explicit(&entry->bytes[card], memory_order_relaxed);
    }
    if (bytes > 0 && bytes > fake_cards[card].total - held)
        return false;
    atomic_fetch_add(&self->bytes[card], bytes);
    return true;
}

/* ---- questions ---- */

#define NEED_START                             \
    do {                                       \
        if (!started)                          \
            return CUDA_ERROR_NOT_INITIALIZED; \
    } while (0)
#define NEED_CARD(device)                                \
    do {                                                 \
        NEED_START;                                      \
        if ((device) < 0 || (device) >= fake_card_count) \
            return 101;                                  \
    } while (0)

API CUresult cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *count)
{
    NEED_START;
    *count = fake_card_count;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice *out, int index)
{
    NEED_CARD(index);
    *out = index;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    NEED_CARD(device);
    snprintf(name, (size_t)length, "Simulated GPU");
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetUuid(CUuuid *out, CUdevice device)
{
    NEED_CARD(device);
    unsigned int byte;
    const char *at = fake_cards[device].uuid + 4;
    for (int i = 0; i < 16; i++, at += 2) {
        at += *at == '-';
        if (sscanf(at, "%2x", &byte) != 1)
            return CUDA_ERROR_INVALID_VALUE;
        out->bytes[i] = (unsigned char)byte;
    }
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetUuid_v2(CUuuid *out, CUdevice device)
{
    return cuDeviceGetUuid(out, device);
}

API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    NEED_CARD(device);
    *value = attribute == 16 ? 132 : attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    NEED_CARD(device);
    *bytes = (size_t)fake_cards[device].total;
    return CUDA_SUCCESS;
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    if (current == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    int64_t held = 0;
    for (int i = 0; i < SIM_LIVE_PROCESSES; i++) {
        const int32_t pid = atomic_load(&fake_live->processes[i].pid);
        if (pid != 0 && !gone(pid))
            held += atomic_load(&fake_live->processes[i].bytes[current->device]);
    }
    *total_bytes = (size_t)fake_cards[current->device].total;
    *free_bytes = *total_bytes - (size_t)held;
    return CUDA_SUCCESS;
}

/* ---- contexts ---- */

static CUresult make_context(fake_context **out, CUdevice device)
{
    fake_context *context = calloc(1, sizeof *context);
    context->device = device;
    context->bytes = CONTEXT_MIB * MIB;
    context->limits[CU_LIMIT_STACK_SIZE] = 1024;
    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = (size_t)MIB;
    context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = (size_t)(8 * MIB);
    if (!fake_take(device, context->bytes)) {
        free(context);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = context;
    return CUDA_SUCCESS;
}

static void end_context(fake_context *context)
{
    fake_take(context->device, -context->bytes);
    if (current == context)
        current = NULL;
    free(context);
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    NEED_CARD(device);
    *flags = 0;
    *active = primaries[device] != NULL;
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    NEED_CARD(device);
    pthread_mutex_lock(&fake_lock);
    const CUresult result = primaries[device] != NULL ? CUDA_SUCCESS : make_context(&primaries[device], device);
    if (result == CUDA_SUCCESS) {
        primary_users[device]++;
        *out = primaries[device];
    }
    pthread_mutex_unlock(&fake_lock);
    return result;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    NEED_CARD(device);
    pthread_mutex_lock(&fake_lock);
    const bool there = primaries[device] != NULL;
    if (there && --primary_users[device] == 0) {
        end_context(primaries[device]);
        primaries[device] = NULL;
    }
    pthread_mutex_unlock(&fake_lock);
    return there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    NEED_CARD(device);
    pthread_mutex_lock(&fake_lock);
    if (primaries[device] != NULL)
        end_context(primaries[device]);
    primaries[device] = NULL;
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

API CUresult cuCtxDestroy_v2(CUcontext context)
{
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&fake_lock);
    fake_context *below = context->below;
    const bool was_current = current == context;
    end_context(context);
    if (was_current)
        current = below;
    pthread_mutex_unlock(&fake_lock);
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
    const bool fits = fake_take(current->device, more);
    if (fits) {
        current->bytes += more;
        current->limits[limit] = value;
    }
    pthread_mutex_unlock(&fake_lock);
    return fits ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- modules: an image "data <MiB>" has so much of global data, any other none ---- */

static CUresult load(void **out, const void *image)
{
    long long mib = 0;
    if (current == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (strncmp(image, "data ", 5) == 0)
        sscanf((const char *)image + 5, "%lld", &mib);
    pthread_mutex_lock(&fake_lock);
    fake_module *module = calloc(1, sizeof *module);
    module->bytes = 2 * MIB + mib * MIB;
    module->card = current->device;
    const bool fits = fake_take(module->card, module->bytes);
    pthread_mutex_unlock(&fake_lock);
    if (!fits) {
        free(module);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = module;
    return CUDA_SUCCESS;
}

static CUresult unload(fake_module *module)
{
    pthread_mutex_lock(&fake_lock);
    fake_take(module->card, -module->bytes);
    pthread_mutex_unlock(&fake_lock);
    free(module);
    return CUDA_SUCCESS;
}

API CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    return load((void **)out, image);
}

API CUresult cuModuleUnload(CUmodule module)
{
    return unload((fake_module *)module);
}

API CUresult cuLibraryLoadData(CUlibrary *out, const void *code, int *jit, void **jit_values, unsigned int jit_count,
                               int *options, void **values, unsigned int count)
{
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load((void **)out, code);
}

API CUresult cuLibraryUnload(CUlibrary library)
{
    return unload((fake_module *)(void *)library);
}

API CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    if (module == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    fake_function *function = calloc(1, sizeof *function);
    snprintf(function->name, sizeof function->name, "%s", name);
    *out = function;
    return CUDA_SUCCESS;
}

/* ---- lookups ---- */

static void *find_export(const char *name)
{
    for (unsigned int i = 0; i < fake_export_count; i++) {
        if (strcmp(fake_exports[i].name, name) == 0)
            return fake_exports[i].address;
    }
    return NULL;
}

API CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags, int *status)
{
    const char *name = NULL;
    int oldest = 0;
    for (const fake_version *v = fake_versions; v->version != 0; v++) {
        if (strcmp(v->base, symbol) != 0)
            continue;
        oldest = oldest == 0 || v->version < oldest ? v->version : oldest;
        if (v->version <= version)
            name = v->name;
    }
    *out = NULL;
    if (status != NULL)
        *status = oldest == 0 ? 1 : name == NULL ? 2 : 0;
    if (name == NULL)
        return CUDA_ERROR_NOT_FOUND;
    char variant[128];
    static const char *const modes[] = {"_ptsz", "_ptds"};
    for (int i = 0; i < 2 && (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) && *out == NULL; i++) {
        snprintf(variant, sizeof variant, "%s%s", name, modes[i]);
        *out = find_export(variant);
    }
    if (*out == NULL)
        *out = find_export(name);
    return *out == NULL ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}

API CUresult cuGetProcAddress(const char *symbol, void **out, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, out, version, flags, NULL);
}
