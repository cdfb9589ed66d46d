/* Where on the card a kernel runs, and when. Under fake_lock. */
#ifndef HAMI_FAKE_PLACE_H
#define HAMI_FAKE_PLACE_H

#include <stdint.h>

enum {
    FAKE_PARTS = 32,     /* of a card: kernels of one process run side by side as far as there are parts for them */
    FAKE_PART_BLOCKS = 4 /* blocks that one part takes */
};

/* Parts that so many blocks take, at most all. */
int fake_parts(uint64_t blocks);

/* Hands `parts` of the card to a kernel that could begin at `ready_ns`: when it begins, -1: that is not for this time slice. */
int64_t fake_place(int card, int64_t ready_ns, int64_t duration_ns, int parts, int64_t now_ns);

#endif
