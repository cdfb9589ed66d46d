/*
 * Hooks of memory of cuMemCreate that is handed to other processes, as a descriptor.
 *
 * What another process of the container made is a loan (loans.h). Which it is its descriptor tells, where the kernel keeps two
 * numbers for signals that nobody asked for: the maker's pid (F_SETOWN), and a small number for each allocation (F_SETSIG).
 */
#define _GNU_SOURCE
#include "memory/handed.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/ipc.h"
#include "memory/loans.h"
#include "memory/vmm.h"
#include "process/log.h"
#include "process/state.h"

typedef hami_block block;

enum { MARKS = 64 /* as there are signals */ };

static block *left; /* of these only descriptors are left */

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

bool hami_handed_keeps(block *b)
{
    if (b->owner >= 0 || b->mark == 0 || !descriptor_open(b->mark))
        return false;
    b->next = left;
    left = b;
    return true;
}

bool hami_handed_ends(const block *b)
{
    const bool lent = b->owner < 0 && b->mark != 0 && b->kind == HAMI_VMM;
    if (b->loan >= 0)
        hami_loan_return(hami_state.ledger, hami_state.slot, b->loan);
    if (lent)
        hami_loan_end(hami_state.ledger, hami_state.slot, b->card->ledger_index, loan_key(b, hami_state.slot), HAMI_VMM, b->bytes);
    return lent || b->owner >= 0;
}

bool hami_handed_leaves(hami_card *card, hami_kind kind, int64_t bytes, int mark)
{
    block *b = descriptor_open(mark) ? malloc(sizeof *b) : NULL;
    if (b == NULL)
        return false;
    *b = (block){.bytes = bytes, .card = card, .kind = kind, .owner = -1, .loan = -1, .mark = mark};
    hami_vmm_lock();
    b->next = left;
    left = b;
    hami_vmm_unlock();
    return true;
}

void hami_handed_refresh(void)
{
    hami_vmm_lock();
    block *before = left; /* letting one go may leave others */
    left = NULL;
    while (before != NULL) {
        block *b = before;
        before = b->next;
        if (!hami_handed_keeps(b))
            hami_vmm_end(b);
    }
    hami_vmm_unlock();
}

/* How large another's memory is shows then. */
void hami_handed_mapped(block *b, int64_t bytes)
{
    if (b->owner < 0 || bytes <= b->bytes)
        return;
    if (b->loan >= 0)
        hami_loan_return(hami_state.ledger, hami_state.slot, b->loan);
    b->bytes = bytes;
    b->loan = hami_loan_take(hami_state.ledger, hami_state.slot, b->owner, b->card->ledger_index, loan_key(b, b->owner), bytes);
}

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
    hami_vmm_lock();
    const CUresult result = BEHIND(cuMemGetHandleForAddressRange, out, address, bytes, type, flags);
    const bool ours = result == CUDA_SUCCESS && type == CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD && atomic_load(&hami_active);
    block *b = ours ? hami_vmm_of_address(address) : NULL;
    const int linear = ours && b == NULL ? hami_buffer_mark(address, fresh_mark()) : 0;
    if (b != NULL)
        mark(b, out);
    else if (linear != 0)
        set_mark(out, linear);
    hami_vmm_unlock();
    return result;
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, int type, unsigned long long flags)
{
    IN_CHILD(cuMemExportToShareableHandle, out, handle, type, flags);
    hami_vmm_lock();
    const CUresult result = BEHIND(cuMemExportToShareableHandle, out, handle, type, flags);
    const bool ours = result == CUDA_SUCCESS && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    block *b = ours ? hami_vmm_of_handle(handle) : NULL;
    if (b != NULL)
        mark(b, out);
    hami_vmm_unlock();
    return result;
}

static hami_card *card_of(CUmemGenericAllocationHandle handle)
{
    CUmemAllocationProp prop;
    return USE(cuMemGetAllocationPropertiesFromHandle, &prop, handle) == CUDA_SUCCESS ? hami_vmm_card(&prop) : NULL;
}

typedef struct {
    int mark;
    block *found;
} own_search;

static void look_at(block *b, void *argument)
{
    own_search *s = argument;
    if (b->owner < 0 && b->kind == HAMI_VMM && b->mark == s->mark && (s->found == NULL || b->bytes > s->found->bytes))
        s->found = b;
}

/* What this process has exported under that mark; of several the largest. It is no longer held by descriptors alone. */
static block *own_block(int marked)
{
    own_search s = {.mark = marked};
    hami_vmm_each(look_at, &s);
    for (block *b = left; b != NULL; b = b->next)
        look_at(b, &s);
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
    block *b = hami_vmm_of_handle(handle);
    if (b == NULL && owner == hami_state.slot && marked != 0)
        b = own_block(marked);
    hami_card *card = b != NULL || owner < 0 || owner == hami_state.slot ? NULL : card_of(handle);
    if (card != NULL && (b = malloc(sizeof *b)) != NULL)
        *b = (block){.card = card, .kind = HAMI_VMM, .owner = owner, .loan = -1, .mark = marked};
    if (b != NULL)
        hami_vmm_hold(handle, b);
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *shareable, int type)
{
    IN_CHILD(cuMemImportFromShareableHandle, out, shareable, type);
    const bool by_descriptor = type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    const int pid = by_descriptor ? fcntl((int)(intptr_t)shareable, F_GETOWN) : 0;
    const int marked = by_descriptor ? fcntl((int)(intptr_t)shareable, F_GETSIG) : 0;
    const int owner = pid > 0 ? hami_ledger_slot_of(hami_state.ledger, pid) : -1;
    hami_vmm_lock();
    const CUresult result = BEHIND(cuMemImportFromShareableHandle, out, shareable, type);
    if (result == CUDA_SUCCESS && by_descriptor)
        imported(*out, owner, marked);
    const bool foreign = result == CUDA_SUCCESS && owner < 0 && hami_vmm_of_handle(*out) == NULL;
    hami_vmm_unlock();
    if (!foreign || !hami_full_for_others(card_of(*out)))
        return result;
    BEHIND(cuMemRelease, *out);
    return CUDA_ERROR_OUT_OF_MEMORY;
}
