/* Marks among what streams have queued: whether the card has got there. */
#ifndef HAMI_FENCE_H
#define HAMI_FENCE_H

#include <stdbool.h>

#include "process/state.h"

/* Marks the end of what `stream` has queued. False: cannot be marked now. */
bool hami_fence(hami_card *card, CUstream stream, hami_fence_kind kind);

/* True when the last fence of that kind in this context has been passed, or there was none. */
bool hami_fence_passed(hami_card *card, hami_fence_kind kind);

#endif
