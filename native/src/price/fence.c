/* See fence.h. */
#include "price/fence.h"

#include "pay/capture.h"
#include "price/bench.h"

bool hami_fence(hami_card *card, CUstream stream, hami_fence_kind kind)
{
    if (!hami_bench_enter())
        return false;
    hami_bench *b = hami_bench_now(card);
    const bool marked = b != NULL && USE(cuEventRecord, b->fences[kind], stream) == CUDA_SUCCESS;
    hami_bench_leave();
    return marked;
}

bool hami_fence_passed(hami_card *card, hami_fence_kind kind)
{
    if (!hami_bench_enter())
        return true;
    hami_bench *b = hami_bench_now(card);
    const int mode = hami_relaxed_begin(); /* another thread may capture by now */
    const bool passed = b == NULL || USE(cuEventQuery, b->fences[kind]) != CUDA_ERROR_NOT_READY;
    hami_relaxed_end(mode);
    hami_bench_leave();
    return passed;
}
