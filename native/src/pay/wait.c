/*
 * Hooks of what waits for the card. A host that waits for each of its launches has nothing queued whenever it makes one; that it waited for the card, and
 * not the card for it, is seen here alone. Only where tenants take turns: elsewhere a hook is two looks and the driver's call.
 */
#include <pthread.h>

#include "pay/pay.h"
#include "prim/prim.h"

typedef struct {
    hami_card *card; /* NULL: nobody takes turns there */
    int64_t since_ns;
} waiting;

static waiting begin(void)
{
    hami_card *card = THROTTLING ? hami_card_now() : NULL;
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

#define WAITS(name, parameters, ...)                \
    CUresult name parameters                        \
    {                                               \
        const waiting w = begin();                  \
        return end(w, BEHIND(name, __VA_ARGS__));   \
    }
WAITS(cuCtxSynchronize_v2, (CUcontext context), context)
WAITS(cuEventSynchronize, (CUevent event), event)
WAITS(cuStreamSynchronize, (CUstream stream), stream)
WAITS(cuStreamSynchronize_ptsz, (CUstream stream), stream)
WAITS(cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t bytes), to, from, bytes)
WAITS(cuMemcpyDtoH_v2_ptds, (void *to, CUdeviceptr from, size_t bytes), to, from, bytes)
WAITS(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), to, from, bytes, stream)
WAITS(cuMemcpyDtoHAsync_v2_ptsz, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), to, from, bytes, stream)

CUresult cuCtxSynchronize(void)
{
    const waiting w = begin();
    return end(w, BEHIND(cuCtxSynchronize));
}
