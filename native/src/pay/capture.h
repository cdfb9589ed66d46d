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

/*
 * Between the two this thread may do what a capture's mode forbids to all: give memory back, load code, ask what is not captured whether it is over. Not
 * what concerns the captured stream itself. What begins gives what ends it.
 */
int hami_relaxed_begin(void);
void hami_relaxed_end(int before);

/* A stream or a context may be about to end, and what is captured on it with it; then it has, or is there as before. */
void hami_captures_stream_leaves(CUstream stream);
void hami_captures_stream_left(CUstream stream, bool gone);
void hami_captures_context_leaves(CUcontext context);
void hami_captures_context_left(CUcontext context, bool gone);

#endif
