/* Memory that other processes have by a descriptor: see handed.c. Under the lock of vmm.h but where it says otherwise. */
#ifndef HAMI_MEMORY_HANDED_H
#define HAMI_MEMORY_HANDED_H

#include "process/state.h"

typedef struct hami_block hami_block;

/* Nothing else holds the block any more. True: a descriptor does, and it is kept until none does. */
bool hami_handed_keeps(hami_block *b);

/* The block goes. True: it was lent or borrowed, and that has ended with its charge; false: its charge is the caller's to end. */
bool hami_handed_ends(const hami_block *b);

/* So much of a block has been mapped. */
void hami_handed_mapped(hami_block *b, int64_t bytes);

/* ---- these take the lock themselves ---- */

/* Looks whether what only descriptors held has gone. */
void hami_handed_refresh(void);

/*
 * Other memory than that of cuMemCreate has been freed, of which a descriptor with that mark may be left. True: there is one,
 * and the charge stands until there is none.
 */
bool hami_handed_leaves(hami_card *card, hami_kind kind, int64_t bytes, int mark);

/* A descriptor of linear memory: the mark that it is to have, `fresh` where there was none. 0: not ours. In held.c. */
int hami_buffer_mark(CUdeviceptr address, int fresh);

#endif
