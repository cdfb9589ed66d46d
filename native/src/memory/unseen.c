/* See unseen.h. */
#include "memory/unseen.h"

#include "intercept/intercept.h"
#include "pay/capture.h"

/*
 * A bare context has 518 MiB on an H200 (docs/reference/limits.md), of which 264 are the first KiB of local memory of each of its threads. The rest is
 * rounded up, for cards and drivers that nobody has measured, and for code that the driver loads when it is first launched.
 */
enum { CONTEXT_BYTES = 384 << 20, LOCAL_BYTES = 1024, MULTIPROCESSORS = 16, THREADS = 39 };

/* Below 0: no context is current, or the driver does not say. `used`: of the rest. */
static int64_t driver_free(int64_t *used)
{
    size_t left = 0, total = 0;
    const int mode = hami_relaxed_begin(); /* the program has not asked this, and may capture */
    const CUresult result = BEHIND(cuMemGetInfo_v2, &left, &total);
    hami_relaxed_end(mode);
    if (result != CUDA_SUCCESS)
        return -1;
    *used = (int64_t)(total - left);
    return (int64_t)left;
}

bool hami_unseen_here(hami_card *card)
{
    if (atomic_load(&card->nvml) != NULL)
        return false;
    return atomic_load(&card->nvml_missing) || !hami_nvml_load();
}

hami_unseen hami_unseen_before(hami_card *card)
{
    int64_t used;
    return (hami_unseen){.held = hami_ledger_held(hami_state.ledger, card->ledger_index), .free = driver_free(&used)};
}

/* What the container gave back meanwhile hides as much of it. */
int64_t hami_unseen_took(hami_card *card, const hami_unseen *before)
{
    int64_t used;
    const int64_t left = before->free < 0 ? -1 : driver_free(&used);
    if (left < 0)
        return 0;
    const int64_t given = before->held - hami_ledger_held(hami_state.ledger, card->ledger_index);
    const int64_t took = before->free - left + (given > 0 ? given : 0);
    return took > 0 ? took : 0;
}

static int64_t used_in(CUcontext context)
{
    CUcontext was = NULL;
    int64_t used = -1;
    if (context == NULL || USE(cuCtxGetCurrent, &was) != CUDA_SUCCESS || USE(cuCtxSetCurrent, context) != CUDA_SUCCESS)
        return -1;
    if (driver_free(&used) < 0)
        used = -1;
    USE(cuCtxSetCurrent, was);
    return used;
}

static int64_t threads_of(const hami_card *card)
{
    int processors = 0, threads = 0;
    USE(cuDeviceGetAttribute, &processors, MULTIPROCESSORS, card->device);
    USE(cuDeviceGetAttribute, &threads, THREADS, card->device);
    return (int64_t)processors * threads;
}

int64_t hami_unseen_context(hami_card *card, CUcontext made)
{
    const int64_t most = CONTEXT_BYTES + LOCAL_BYTES * threads_of(card), used = used_in(made);
    return used >= 0 && used < most ? used : most;
}
