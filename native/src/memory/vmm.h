/* What holds physical memory of cuMemCreate beside its handles and mappings: see vmm.c and bound.c. Under the lock but where it says otherwise. */
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

void hami_vmm_lock(void);
void hami_vmm_unlock(void);

/* NULL: not ours. */
hami_block *hami_vmm_of_handle(CUmemGenericAllocationHandle handle);
hami_block *hami_vmm_of_address(CUdeviceptr address);

/* A multicast object: counted as a handle of memory is. */
void hami_vmm_add(CUmemGenericAllocationHandle handle, hami_card *card);

/* Gives up so many holds; with the last one the block goes, and what is bound to it is let go. */
void hami_vmm_drop(hami_block *b, int64_t count);

/* ---- these take the lock themselves ---- */

/* Looks whether what only descriptors held has gone. */
void hami_vmm_refresh(void);

/*
 * Other memory than that of cuMemCreate has been freed, of which a descriptor with that mark may be left. True: there is one,
 * and the charge stands until there is none.
 */
bool hami_vmm_leave(hami_card *card, hami_kind kind, int64_t bytes, int mark);

/* A descriptor of linear memory: the mark that it is to have, `fresh` where there was none. 0: not ours. In held.c. */
int hami_buffer_mark(CUdeviceptr address, int fresh);

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
