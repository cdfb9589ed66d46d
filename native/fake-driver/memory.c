/* What has been taken of a card, and linear memory. See fake.h. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc.h"

enum { ALLOCS = 1 << 16 };

static struct alloc allocs[ALLOCS]; /* open addressing by key */
static uint64_t next_address = 0x7f0000000000u;
static int64_t small_bytes[SIM_LIVE_CARDS], small_held[SIM_LIVE_CARDS]; /* under 1 MiB: from slabs of 2 MiB */

static struct alloc *find(uint64_t key)
{
    uint64_t at = (key * 0x9e3779b97f4a7c15u) >> 48;
    for (int i = 0; i < ALLOCS && allocs[at].key != 0 && allocs[at].key != key; i++)
        at = (at + 1) % ALLOCS;
    return allocs[at].key == key ? &allocs[at] : NULL;
}

struct alloc *fake_add(struct alloc entry)
{
    uint64_t at = (entry.key * 0x9e3779b97f4a7c15u) >> 48;
    while (allocs[at].key != 0 && allocs[at].key != entry.key && allocs[at].kind != 0)
        at = (at + 1) % ALLOCS;
    allocs[at] = entry;
    return &allocs[at];
}

/* Keeps its key, so that probing goes on past it; addresses are never given twice. */
void fake_drop(struct alloc *entry)
{
    entry->kind = 0;
    size_t at = (size_t)(entry - allocs);
    while (allocs[at].key != 0 && allocs[at].kind == 0 && allocs[(at + 1) % ALLOCS].key == 0) {
        allocs[at].key = 0; /* nothing behind it: the chain may end here */
        at = (at + ALLOCS - 1) % ALLOCS;
    }
}

struct alloc *fake_live_alloc(uint64_t key, int kind)
{
    struct alloc *entry = find(key);
    return entry != NULL && entry->kind == kind ? entry : NULL;
}

struct alloc *fake_mapping(CUdeviceptr address)
{
    for (int i = 0; i < ALLOCS; i++) {
        if (allocs[i].kind == A_MAP && allocs[i].key <= address && address < allocs[i].key + (uint64_t)allocs[i].bytes)
            return &allocs[i];
    }
    return NULL;
}

CUdeviceptr fake_address(int64_t bytes)
{
    const CUdeviceptr address = next_address;
    next_address += (uint64_t)((bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB)) + (uint64_t)(2 * MIB);
    return address;
}

bool fake_on_card(CUdeviceptr address)
{
    return address >= 0x7f0000000000u && address < next_address;
}

static bool take_linear(int card, int64_t bytes)
{
    if (bytes > MIB)
        return fake_take(card, (bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB));
    const int64_t now = small_bytes[card] + (bytes + 511) / 512 * 512;
    const int64_t slabs = (now + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    if (slabs > small_held[card] && !fake_take(card, slabs - small_held[card]))
        return false;
    small_held[card] = slabs > small_held[card] ? slabs : small_held[card];
    small_bytes[card] = now;
    return true;
}

void fake_give_linear(int card, int64_t bytes)
{
    if (bytes > MIB) {
        fake_take(card, -((bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB)));
        return;
    }
    small_bytes[card] -= (bytes + 511) / 512 * 512;
    if (small_bytes[card] == 0) {
        fake_take(card, -small_held[card]);
        small_held[card] = 0;
    }
}

/* ---- linear ---- */

static CUresult linear(CUdeviceptr *out, size_t bytes, int kind, int card)
{
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > (size_t)1 << 50 || !take_linear(card, (int64_t)bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = fake_address((int64_t)bytes);
    fake_add((struct alloc){.key = *out, .bytes = (int64_t)bytes, .card = card, .kind = kind});
    return CUDA_SUCCESS;
}

/* FAKE_CUDA_LONG_MS: for so long linear memory is asked for and not taken yet, or freed and not answered for: a thread that waits for a processor just then. */
static void be_long(void)
{
    const char *ms = getenv("FAKE_CUDA_LONG_MS");
    if (ms != NULL)
        usleep((useconds_t)(1000 * atoi(ms)));
}

API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    be_long();
    ENTER;
    return fake_leave(linear(out, bytes, A_LINEAR, context->device));
}

API CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned int flags)
{
    (void)flags;
    ENTER;
    return fake_leave(linear(out, bytes, A_MANAGED, context->device));
}

API CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width_bytes, size_t height, unsigned int element_bytes)
{
    (void)element_bytes;
    ENTER;
    const char *unit = getenv("FAKE_CUDA_PITCH"); /* what rows are rounded to, bytes */
    const size_t row = unit == NULL ? 512 : (size_t)atoi(unit);
    *pitch = (width_bytes + row - 1) / row * row;
    return fake_leave(linear(out, *pitch * height, A_LINEAR, context->device));
}

static CUresult free_any(CUdeviceptr address)
{
    struct alloc *entry = find(address);
    if (entry == NULL || entry->kind == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (entry->kind == A_LINEAR || entry->kind == A_MANAGED)
        fake_kept(entry) ? (void)0 : fake_give_linear(entry->card, entry->bytes);
    else if (entry->kind == A_POOLED)
        fake_pool_give(entry);
    else if (entry->kind == A_GRAPHMEM)
        fake_graph_give(entry);
    else
        return CUDA_ERROR_INVALID_VALUE;
    fake_drop(entry);
    return CUDA_SUCCESS;
}

API CUresult cuMemFree_v2(CUdeviceptr address)
{
    if (address == 0)
        return CUDA_SUCCESS;
    ENTER;
    (void)context;
    const CUresult result = fake_leave(fake_fails("cuMemFree_v2") ? CUDA_ERROR_INVALID_VALUE : free_any(address));
    be_long();
    return result;
}

enum { HOST_PLACES = 1024 };

static struct {
    void *address; /* NULL: free */
    size_t bytes;
    const fake_context *context;
} host_memory[HOST_PLACES];

API CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned int flags)
{
    (void)flags;
    int at = 0;
    pthread_mutex_lock(&fake_lock);
    while (at < HOST_PLACES && host_memory[at].address != NULL)
        at++;
    void *made = at == HOST_PLACES ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    host_memory[at].address = *out = made;
    host_memory[at].bytes = bytes;
    host_memory[at].context = fake_current();
    return fake_leave(CUDA_SUCCESS);
}

/* Whoever touches it afterwards gets a fault. */
void fake_host_gone(const fake_context *context, const void *address)
{
    for (int i = 0; i < HOST_PLACES; i++) {
        if (host_memory[i].address == NULL || (address == NULL ? host_memory[i].context != context : host_memory[i].address != address))
            continue;
        mprotect(host_memory[i].address, host_memory[i].bytes, PROT_NONE);
        host_memory[i].address = NULL;
    }
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *host, unsigned int flags)
{
    (void)flags;
    *out = (CUdeviceptr)(uintptr_t)host;
    return CUDA_SUCCESS;
}

API CUresult cuMemFreeHost(void *host)
{
    pthread_mutex_lock(&fake_lock);
    fake_host_gone(NULL, host);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address)
{
    if ((attribute != CU_POINTER_ATTRIBUTE_MEMORY_TYPE && attribute != CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) || !fake_on_card(address))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    const struct alloc *entry = find(address);
    *(int *)value = attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE ? CU_MEMORYTYPE_DEVICE : entry == NULL ? 0 : entry->card;
    return fake_leave(CUDA_SUCCESS);
}
