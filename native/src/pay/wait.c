/*
 * Hooks of what waits for the card, in a call that blocks or by asking again and again. A host that waits for each of its launches has nothing queued whenever
 * it makes one; that it waited for the card, and not the card for it, is seen here alone. Only where tenants take turns: elsewhere a hook is two looks and the
 * driver's call.
 */
#include <pthread.h>

#include "memory/local.h"
#include "pay/capture.h"
#include "pay/pay.h"
#include "pay/polls.h"
#include "prim/prim.h"

typedef struct {
    hami_card *card; /* NULL: nobody takes turns there */
    int64_t since_ns;
} waiting;

/* Of several cards the one that is waited for, where the context or the stream tells, whichever is current: on that one nothing is left idle by it. */
static hami_card *card_of(CUcontext context, CUstream stream)
{
    const bool named = stream != NULL && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD;
    hami_card *card = NULL;
    if (hami_state.card_count > 1 && named && USE(cuStreamGetCtx, stream, &context) != CUDA_SUCCESS)
        context = NULL;
    if (hami_state.card_count > 1 && context != NULL)
        card = hami_local_card_of(context);
    return card != NULL ? card : hami_card_now();
}

static waiting begin(CUcontext context, CUstream stream)
{
    hami_card *card = THROTTLING ? card_of(context, stream) : NULL;
    if (card == NULL || card->pacer.page == NULL)
        return (waiting){0};
    const int64_t now = hami_now_ns();
    pthread_mutex_lock(&card->pacing);
    hami_turn_waits(&card->pacer, now);
    pthread_mutex_unlock(&card->pacing);
    return (waiting){card, now};
}

static CUresult end(waiting w, CUresult result)
{
    if (w.card != NULL) {
        pthread_mutex_lock(&w.card->pacing);
        hami_turn_waited(&w.card->pacer, w.since_ns, hami_now_ns());
        pthread_mutex_unlock(&w.card->pacing);
    }
    return result;
}

#define WAITS(name, whose, stream_, parameters, ...) \
    CUresult name parameters                          \
    {                                                 \
        const waiting w = begin(whose, stream_);    \
        return end(w, BEHIND(name, __VA_ARGS__));     \
    }
WAITS(cuCtxSynchronize_v2, context, NULL, (CUcontext context), context)
WAITS(cuEventSynchronize, NULL, NULL, (CUevent event), event)
WAITS(cuStreamSynchronize, NULL, stream, (CUstream stream), stream)
WAITS(cuStreamSynchronize_ptsz, NULL, stream, (CUstream stream), stream)
WAITS(cuMemcpyDtoH_v2, NULL, NULL, (void *to, CUdeviceptr from, size_t bytes), to, from, bytes)
WAITS(cuMemcpyDtoH_v2_ptds, NULL, NULL, (void *to, CUdeviceptr from, size_t bytes), to, from, bytes)
WAITS(cuMemcpyDtoHAsync_v2, NULL, stream, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), to, from, bytes, stream)
WAITS(cuMemcpyDtoHAsync_v2_ptsz, NULL, stream, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), to, from, bytes, stream)

CUresult cuCtxSynchronize(void)
{
    const waiting w = begin(NULL, NULL);
    return end(w, BEHIND(cuCtxSynchronize));
}

/* The turns' lock is taken only where a wait is over. */
static void answered(const void *what, CUstream stream, bool through)
{
    static __thread hami_polls polls __attribute__((tls_model("initial-exec")));
    if ((through && polls.since_ns == 0) || hami_capturing())
        return;
    hami_card *card = card_of(NULL, stream);
    if (card == NULL || card->pacer.page == NULL)
        return;
    const int64_t bought = atomic_load_explicit(&card->purse.known_ns, memory_order_relaxed);
    const int64_t since = hami_polled(&polls, what, through, bought, hami_now_ns());
    if (since == 0)
        return;
    pthread_mutex_lock(&card->pacing);
    hami_turn_waited(&card->pacer, since, polls.last_ns);
    pthread_mutex_unlock(&card->pacing);
}

#define ASKS(name, type, what, stream)                                                \
    CUresult name(type what)                                                          \
    {                                                                                 \
        const CUresult result = BEHIND(name, what);                                   \
        if (THROTTLING && (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_READY)) \
            answered(what, stream, result == CUDA_SUCCESS);                           \
        return result;                                                                \
    }
ASKS(cuStreamQuery, CUstream, asked, asked)
ASKS(cuStreamQuery_ptsz, CUstream, asked, asked)
ASKS(cuEventQuery, CUevent, asked, NULL)
