/* Priorities: where both are on a card, the low one yields to the high one. */
#ifndef HAMI_YIELD_H
#define HAMI_YIELD_H

#include "process/state.h"

/* Before a launch: leaves word of it, or waits while a tenant of higher priority is at work. */
void hami_yield(hami_card *card, CUstream stream);

#endif
