/* What holds physical memory of cuMemCreate beside its handles and mappings: see vmm.c, bound.c and handed.c. Under the lock but where it says otherwise. */
#ifndef HAMI_MEMORY_VMM_H
#define HAMI_MEMORY_VMM_H

#include "process/state.h"

typedef struct hami_block hami_block;

/* A part of a multicast object or of a sparse array, and the block behind it. */
typedef struct hami_binding {
    uint64_t where[5]; /* in the object, or which part of the array */
    hami_block *behind;
    struct hami_binding *next;
} hami_binding;

struct hami_block {
    int64_t bytes;    /* of a multicast object 0: it holds what is bound to it */
    hami_card *card;
    hami_kind kind;
    int64_t holders; /* as many as a program cares to retain */
    int owner; /* slot of the process that made it, -1: this one */
    int loan;  /* row, -1: none */
    int mark;  /* of its maker's, 1 to 64; 0: not exported */
    hami_binding *bound;
    hami_block *next; /* of those of which only descriptors are left */
};

/* A forked child asks the driver alone, which says no: another thread of its parent may have had the lock. */
#define IN_CHILD(name, ...)         \
    if (!atomic_load(&hami_active)) \
    return BEHIND(name, __VA_ARGS__)

void hami_vmm_lock(void);
void hami_vmm_unlock(void);

/* NULL: not ours. */
hami_block *hami_vmm_of_handle(CUmemGenericAllocationHandle handle);
hami_block *hami_vmm_of_address(CUdeviceptr address);

/* A multicast object: counted as a handle of memory is. */
void hami_vmm_add(CUmemGenericAllocationHandle handle, hami_card *card);

/* By one more reference of the handle; where it is not known yet it is the block's from now on. */
void hami_vmm_hold(CUmemGenericAllocationHandle handle, hami_block *b);

/* All that have a handle or a mapping; one with several is seen as often. */
void hami_vmm_each(void (*see)(hami_block *each, void *argument), void *argument);

/* Gives up so many holds; with the last one the block goes, and what is bound to it is let go. */
void hami_vmm_drop(hami_block *b, int64_t count);

/* Nothing holds it, no descriptor either. */
void hami_vmm_end(hami_block *b);

/* Whose memory it is, without the lock. NULL: no card's. */
hami_card *hami_vmm_card(const CUmemAllocationProp *prop);

/* ---- these take the lock themselves ---- */

/*
 * An array or mipmap is about to be destroyed: what its parts hold, NULL: nothing. Then it has been, or `result` says why not, which is
 * returned. In between its handle may already be another's.
 */
hami_block *hami_array_leaves(uint64_t array);
CUresult hami_array_left(uint64_t array, hami_block *parts, CUresult result);

/* A context is called otherwise from now on; it has gone, and all its arrays with it. */
void hami_arrays_rename(CUcontext from, CUcontext to);
void hami_arrays_gone(CUcontext context);

#endif
