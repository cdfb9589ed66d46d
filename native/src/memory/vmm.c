/*
 * Hooks of virtual memory management.
 *
 * Physical memory lives as long as anything holds it: its handle (and every retain of it), a mapping, a multicast object or
 * sparse array that it is bound to (bound.c), or a descriptor. So the charge is counted by holders, and goes when the last one
 * goes; releasing a handle that is still mapped frees nothing. What another process of the container made is a loan (loans.h).
 * Which it is its descriptor tells, where the kernel keeps two numbers for signals that nobody asked for: the maker's pid
 * (F_SETOWN), and a small number for each allocation (F_SETSIG).
 */
#define _GNU_SOURCE
#include "memory/vmm.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/ipc.h"
#include "memory/loans.h"
#include "process/log.h"
#include "memory/map.h"
#include "process/state.h"

typedef hami_block block;

enum { MARKS = 64 /* as there are signals */ };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the holders, and both maps together */
static hami_map handles = HAMI_MAP_INIT;  /* handle -> block; bytes: references through this handle */
static hami_map mappings = HAMI_MAP_INIT; /* address -> block */
static block *left;                       /* of these only descriptors are left */

/* A forked child asks the driver alone, which says no: another thread of its parent may have had the lock. */
#define IN_CHILD(name, ...)         \
    if (!atomic_load(&hami_active)) \
    return BEHIND(name, __VA_ARGS__)

void hami_vmm_lock(void)
{
    pthread_mutex_lock(&lock);
}

void hami_vmm_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* By its maker, its mark and its size: of 64 of the same size, two may be taken for one another. */
static uint64_t loan_key(const block *b, int owner)
{
    const int64_t words[] = {owner, (int64_t)hami_state.ledger->slots[owner].start, b->card->ledger_index, b->bytes, b->mark};
    return hami_loan_key(words, sizeof words);
}

/* Whether this process still has a descriptor of that mark of its own. */
static bool descriptor_open(int mark)
{
    DIR *folder = opendir("/proc/self/fd");
    bool found = folder == NULL; /* nobody can say */
    for (const struct dirent *entry; !found && folder != NULL && (entry = readdir(folder)) != NULL;) {
        const int fd = atoi(entry->d_name); /* also of "." and "..": 0, which is asked as any other */
        found = fcntl(fd, F_GETOWN) == getpid() && fcntl(fd, F_GETSIG) == mark;
    }
    if (folder != NULL)
        closedir(folder);
    return found;
}

static void end(block *b)
{
    while (b->bound != NULL) {
        hami_binding *gone = b->bound;
        b->bound = gone->next;
        hami_vmm_drop(gone->behind, 1);
        free(gone);
    }
    if (b->owner >= 0 && b->loan >= 0)
        hami_loan_return(hami_state.ledger, hami_state.slot, b->loan);
    else if (b->owner < 0 && b->mark != 0 && b->kind == HAMI_VMM)
        hami_loan_end(hami_state.ledger, hami_state.slot, b->card->ledger_index, loan_key(b, hami_state.slot), HAMI_VMM, b->bytes);
    else if (b->owner < 0 && b->bytes > 0)
        hami_give(b->card, b->kind, b->bytes);
    free(b);
}

void hami_vmm_drop(block *b, int64_t count)
{
    b->holders -= count;
    if (b->holders > 0)
        return;
    if (b->owner < 0 && b->mark != 0 && descriptor_open(b->mark)) {
        b->next = left;
        left = b;
    } else {
        end(b);
    }
}

bool hami_vmm_leave(hami_card *card, hami_kind kind, int64_t bytes, int mark)
{
    block *b = descriptor_open(mark) ? malloc(sizeof *b) : NULL;
    if (b == NULL)
        return false;
    *b = (block){.bytes = bytes, .card = card, .kind = kind, .owner = -1, .loan = -1, .mark = mark};
    pthread_mutex_lock(&lock);
    b->next = left;
    left = b;
    pthread_mutex_unlock(&lock);
    return true;
}

void hami_vmm_refresh(void)
{
    pthread_mutex_lock(&lock);
    block *before = left; /* letting one go may leave others */
    left = NULL;
    while (before != NULL) {
        block *b = before;
        before = b->next;
        if (descriptor_open(b->mark)) {
            b->next = left;
            left = b;
        } else {
            end(b);
        }
    }
    pthread_mutex_unlock(&lock);
}

static block *block_of(const hami_entry *entry)
{
    return (block *)(uintptr_t)entry->tag;
}

block *hami_vmm_of_handle(CUmemGenericAllocationHandle handle)
{
    hami_entry entry;
    return hami_map_get(&handles, handle, false, &entry) ? block_of(&entry) : NULL;
}

typedef struct {
    CUdeviceptr address;
    block *found;
} search;

static void look_for(hami_entry *entry, void *argument)
{
    search *s = argument;
    if (entry->key <= s->address && s->address < entry->key + (uint64_t)entry->bytes)
        s->found = block_of(entry);
}

/* By any address in it; most ask by the first. */
block *hami_vmm_of_address(CUdeviceptr address)
{
    hami_entry entry;
    search s = {.address = address};
    if (hami_map_get(&mappings, address, false, &entry))
        return block_of(&entry);
    hami_map_each(&mappings, look_for, &s);
    return s.found;
}

void hami_vmm_add(CUmemGenericAllocationHandle handle, hami_card *card)
{
    block *b = malloc(sizeof *b);
    if (b == NULL)
        return;
    *b = (block){.card = card, .kind = HAMI_VMM, .holders = 1, .owner = -1, .loan = -1};
    hami_map_put(&handles, (hami_entry){.key = handle, .bytes = 1, .tag = (uint64_t)(uintptr_t)b});
}

static bool on_card(const CUmemAllocationProp *prop)
{
    return prop != NULL && (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE ||
                            prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN);
}

/* The card is the one that the properties name; the current context does not matter, there may be none. */
CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *prop, unsigned long long flags)
{
    if (atomic_load(&hami_shut))
        return CUDA_ERROR_SYSTEM_NOT_READY; /* it needs no context */
    const bool active = atomic_load(&hami_active) && out != NULL && on_card(prop);
    /* A locality domain's id holds the device in its low byte. */
    hami_card *card = !active ? NULL : hami_card_of(prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE ? prop->location.id
                                                                                                      : prop->location.id & 0xff);
    if (card == NULL)
        return BEHIND(cuMemCreate, out, bytes, prop, flags);
    const int64_t charge = bytes > (size_t)1 << 60 ? INT64_MAX : (int64_t)bytes;
    block *b = malloc(sizeof *b);
    if (b == NULL || !hami_take(card, HAMI_VMM, charge)) {
        free(b);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *b = (block){.bytes = charge, .card = card, .kind = HAMI_VMM, .holders = 1, .owner = -1, .loan = -1};
    const CUresult result = BEHIND(cuMemCreate, out, bytes, prop, flags);
    pthread_mutex_lock(&lock);
    if (result != CUDA_SUCCESS)
        hami_vmm_drop(b, 1);
    else
        hami_map_put(&handles, (hami_entry){.key = *out, .bytes = 1, .tag = (uint64_t)(uintptr_t)b});
    pthread_mutex_unlock(&lock);
    hami_asked(card);
    return result;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    IN_CHILD(cuMemRelease, handle);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const bool ours = hami_map_get(&handles, handle, true, &entry);
    const CUresult result = BEHIND(cuMemRelease, handle);
    if (ours && result == CUDA_SUCCESS) {
        if (--entry.bytes > 0)
            hami_map_put(&handles, entry);
        hami_vmm_drop(block_of(&entry), 1);
    } else if (ours) {
        hami_map_put(&handles, entry);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *address)
{
    IN_CHILD(cuMemRetainAllocationHandle, out, address);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemRetainAllocationHandle, out, address);
    block *b = result == CUDA_SUCCESS ? hami_vmm_of_address((uint64_t)(uintptr_t)address) : NULL;
    if (b != NULL) {
        if (!hami_map_get(&handles, *out, false, &entry))
            entry = (hami_entry){.key = *out, .tag = (uint64_t)(uintptr_t)b};
        entry.bytes++;
        b->holders++;
        hami_map_put(&handles, entry);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* How large another's memory is shows when it is mapped. Under the lock. */
static void borrow(block *b, int64_t bytes)
{
    if (b->owner < 0 || bytes <= b->bytes)
        return;
    if (b->loan >= 0)
        hami_loan_return(hami_state.ledger, hami_state.slot, b->loan);
    b->bytes = bytes;
    b->loan = hami_loan_take(hami_state.ledger, hami_state.slot, b->owner, b->card->ledger_index, loan_key(b, b->owner), bytes);
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    IN_CHILD(cuMemMap, address, bytes, offset, handle, flags);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemMap, address, bytes, offset, handle, flags);
    if (result == CUDA_SUCCESS && hami_map_get(&handles, handle, false, &entry)) {
        block_of(&entry)->holders++;
        borrow(block_of(&entry), (int64_t)(offset + bytes));
        hami_map_put(&mappings, (hami_entry){.key = address, .bytes = (int64_t)bytes, .tag = entry.tag});
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* One call may undo several mappings, of which the first need not be ours. */
CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    IN_CHILD(cuMemUnmap, address, bytes);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemUnmap, address, bytes);
    if (result == CUDA_SUCCESS) {
        const bool first = hami_map_get(&mappings, address, true, &entry), more = !first || (uint64_t)entry.bytes < bytes;
        if (first)
            hami_vmm_drop(block_of(&entry), 1);
        while (more && hami_map_take_range(&mappings, address, address + bytes, &entry))
            hami_vmm_drop(block_of(&entry), 1);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- between processes ---- */

/* Under the lock, as the next. */
static int fresh_mark(void)
{
    static int last;
    return last = last % MARKS + 1;
}

static void set_mark(const void *descriptor, int mark)
{
    int fd;
    memcpy(&fd, descriptor, sizeof fd);
    if (fcntl(fd, F_SETOWN, getpid()) != 0 || fcntl(fd, F_SETSIG, mark) != 0)
        hami_log(HAMI_LOG_WARN, "exported memory cannot be marked: who has it will not be known");
}

static void mark(block *b, const void *descriptor)
{
    if (b->owner >= 0)
        return;
    if (b->mark == 0)
        b->mark = fresh_mark();
    set_mark(descriptor, b->mark);
}

/* For other devices: it holds the memory, whatever that is of. */
CUresult cuMemGetHandleForAddressRange(void *out, CUdeviceptr address, size_t bytes, int type, unsigned long long flags)
{
    IN_CHILD(cuMemGetHandleForAddressRange, out, address, bytes, type, flags);
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemGetHandleForAddressRange, out, address, bytes, type, flags);
    const bool ours = result == CUDA_SUCCESS && type == CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD && atomic_load(&hami_active);
    block *b = ours ? hami_vmm_of_address(address) : NULL;
    const int linear = ours && b == NULL ? hami_buffer_mark(address, fresh_mark()) : 0;
    if (b != NULL)
        mark(b, out);
    else if (linear != 0)
        set_mark(out, linear);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, int type, unsigned long long flags)
{
    IN_CHILD(cuMemExportToShareableHandle, out, handle, type, flags);
    hami_entry entry;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemExportToShareableHandle, out, handle, type, flags);
    if (result == CUDA_SUCCESS && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR && hami_map_get(&handles, handle, false, &entry))
        mark(block_of(&entry), out);
    pthread_mutex_unlock(&lock);
    return result;
}

static hami_card *card_of(CUmemGenericAllocationHandle handle)
{
    CUmemAllocationProp prop;
    if (USE(cuMemGetAllocationPropertiesFromHandle, &prop, handle) != CUDA_SUCCESS || !on_card(&prop))
        return NULL;
    return hami_card_of(prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? prop.location.id : prop.location.id & 0xff);
}

typedef struct {
    int mark;
    block *found;
} own_search;

static void look_at_own(block *b, own_search *s)
{
    if (b->owner < 0 && b->kind == HAMI_VMM && b->mark == s->mark && (s->found == NULL || b->bytes > s->found->bytes))
        s->found = b;
}

static void look_at_entry(hami_entry *entry, void *argument)
{
    look_at_own(block_of(entry), argument);
}

/* What this process has exported under that mark; of several the largest. It is no longer held by descriptors alone. */
static block *own_block(int marked)
{
    own_search s = {.mark = marked};
    hami_map_each(&handles, look_at_entry, &s);
    hami_map_each(&mappings, look_at_entry, &s);
    for (block *b = left; b != NULL; b = b->next)
        look_at_own(b, &s);
    for (block **at = &left; *at != NULL; at = &(*at)->next) {
        if (*at == s.found) {
            *at = s.found->next;
            break;
        }
    }
    return s.found;
}

/* Under the lock. What nobody of the container made NVML shows. */
static void imported(CUmemGenericAllocationHandle handle, int owner, int marked)
{
    hami_entry entry;
    if (hami_map_get(&handles, handle, false, &entry)) {
        entry.bytes++;
        block_of(&entry)->holders++;
        hami_map_put(&handles, entry);
        return;
    }
    block *own = owner == hami_state.slot && marked != 0 ? own_block(marked) : NULL;
    if (own != NULL) {
        own->holders++;
        hami_map_put(&handles, (hami_entry){.key = handle, .bytes = 1, .tag = (uint64_t)(uintptr_t)own});
        return;
    }
    hami_card *card = owner < 0 || owner == hami_state.slot ? NULL : card_of(handle);
    block *b = card == NULL ? NULL : malloc(sizeof *b);
    if (b == NULL)
        return;
    *b = (block){.card = card, .kind = HAMI_VMM, .holders = 1, .owner = owner, .loan = -1, .mark = marked};
    hami_map_put(&handles, (hami_entry){.key = handle, .bytes = 1, .tag = (uint64_t)(uintptr_t)b});
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *shareable, int type)
{
    IN_CHILD(cuMemImportFromShareableHandle, out, shareable, type);
    const bool by_descriptor = type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    const int pid = by_descriptor ? fcntl((int)(intptr_t)shareable, F_GETOWN) : 0;
    const int marked = by_descriptor ? fcntl((int)(intptr_t)shareable, F_GETSIG) : 0;
    const int owner = pid > 0 ? hami_ledger_slot_of(hami_state.ledger, pid) : -1;
    pthread_mutex_lock(&lock);
    const CUresult result = BEHIND(cuMemImportFromShareableHandle, out, shareable, type);
    if (result == CUDA_SUCCESS && by_descriptor)
        imported(*out, owner, marked);
    const bool foreign = result == CUDA_SUCCESS && owner < 0 && hami_vmm_of_handle(*out) == NULL;
    pthread_mutex_unlock(&lock);
    if (!foreign || !hami_full_for_others(card_of(*out)))
        return result;
    BEHIND(cuMemRelease, *out);
    return CUDA_ERROR_OUT_OF_MEMORY;
}
