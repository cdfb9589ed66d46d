/* Stream captures: what is captured does not run, so it is not paid for, and no event may be put into it. */
#ifndef HAMI_CAPTURE_H
#define HAMI_CAPTURE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "hami/cuda_abi.h"
#include "pay/hot.h"

static inline bool hami_capturing(void)
{
    return atomic_load_explicit(&hami_hot.captures, memory_order_relaxed) != 0;
}

/* True when a launch on `stream` would be captured. */
bool hami_captured(CUstream stream);

#endif
