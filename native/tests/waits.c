/*
 * Of several cards the one that is waited for is told so, whichever context is current: wait.c, with the driver played. A card that is told of a wait on
 * another would take what its host leaves idle there for work. And who asks again and again has waited, who asks now and then between other things has not.
 */
#include <stdio.h>

#include "check.h"
#include "pay/wait.c"

hami_state_t hami_state = {.card_count = 2};
_Atomic int hami_throttling = 1;
hami_uses hami_use;
hami_behind_t hami_behind;
hami_hot_t hami_hot;

static hami_turns_page pages[2];
static int contexts[2], streams[2]; /* of the one card and of the other; the first card's is current */
static int64_t now_ns = (int64_t)1000 * 1000 * 1000 * 1000;

int64_t hami_now_ns(void)
{
    return now_ns += 1000 * 1000;
}

hami_card *hami_card_now(void)
{
    return &hami_state.cards[0];
}

hami_card *hami_local_card_of(CUcontext context)
{
    for (int i = 0; i < 2; i++) {
        if (context == (CUcontext)&contexts[i])
            return &hami_state.cards[i];
    }
    return NULL;
}

static CUresult context_of(CUstream stream, CUcontext *out)
{
    for (int i = 0; i < 2; i++) {
        if (stream == (CUstream)&streams[i])
            *out = (CUcontext)&contexts[i];
    }
    return CUDA_SUCCESS;
}

static CUresult waits_for_context(CUcontext context)
{
    return context == (CUcontext)&contexts[0] ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult waits_for_stream(CUstream stream)
{
    return stream == (CUstream)&streams[0] ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult now_is = CUDA_ERROR_NOT_READY; /* what who asks is told */

static CUresult stream_is(CUstream stream)
{
    (void)stream;
    return now_is;
}

static CUresult event_is(CUevent event)
{
    (void)event;
    return now_is;
}

enum { AGAIN = 100 };

/* So many answers that it is not through, 1 ms apart, and one that it is. */
static void asks(CUresult (*query)(CUstream), CUstream stream, int answers)
{
    now_is = CUDA_ERROR_NOT_READY;
    for (int i = 0; i < answers; i++)
        query(stream);
    now_is = CUDA_SUCCESS;
    query(stream);
}

static CUresult event_query(CUstream event)
{
    return cuEventQuery((CUevent)(void *)event);
}

static bool waited(uint32_t first, uint32_t second)
{
    return hami_state.cards[0].pacer.had.waits == first && hami_state.cards[1].pacer.had.waits == second;
}

static void what_is_no_wait(void)
{
    CUstream stream = (CUstream)&streams[0];
    asks(cuStreamQuery, stream, 0); /* it was through at once */
    for (int i = 0; i < AGAIN; i++)
        asks(cuStreamQuery, stream, 1 + i % 20); /* too few answers to see the end in time */
    now_is = CUDA_ERROR_NOT_READY;
    for (int i = 0; i < AGAIN; i++) {
        cuStreamQuery(stream);
        hami_state.cards[0].purse.known_ns += i % 20 == 0; /* launches in between */
    }
    asks(cuStreamQuery, stream, 10);
    for (int i = 0; i < AGAIN; i++) { /* something else, after a pause */
        now_is = CUDA_ERROR_NOT_READY;
        now_ns += HAMI_ASKED_NS;
        cuStreamQuery(i % 20 == 0 ? (CUstream)&streams[1] : stream);
    }
    asks(cuStreamQuery, stream, 10);
    hami_hot.captures = 1; /* nobody is told */
    asks(cuStreamQuery, stream, AGAIN);
    hami_hot.captures = 0;
}

int main(void)
{
    for (int i = 0; i < 2; i++) {
        pthread_mutex_init(&hami_state.cards[i].pacing, NULL);
        hami_state.cards[i].pacer = (hami_pacer){.page = &pages[i], .weight = 50};
    }
    hami_use.cuStreamGetCtx = context_of;
    hami_behind.cuCtxSynchronize_v2 = waits_for_context;
    hami_behind.cuStreamSynchronize = waits_for_stream;
    hami_behind.cuStreamQuery = hami_behind.cuStreamQuery_ptsz = stream_is;
    hami_behind.cuEventQuery = event_is;
    CHECK(cuCtxSynchronize_v2((CUcontext)&contexts[0]) == CUDA_SUCCESS && waited(1, 0));
    CHECK(cuCtxSynchronize_v2((CUcontext)&contexts[1]) == CUDA_ERROR_NOT_READY && waited(1, 1));
    CHECK(cuStreamSynchronize((CUstream)&streams[0]) == CUDA_SUCCESS && waited(2, 1));
    CHECK(cuStreamSynchronize((CUstream)&streams[1]) == CUDA_ERROR_NOT_READY && waited(2, 2));
    cuStreamSynchronize(NULL);
    CHECK(waited(3, 2));
    asks(cuStreamQuery, (CUstream)&streams[1], AGAIN);
    CHECK(waited(3, 3));
    asks(cuStreamQuery_ptsz, (CUstream)&streams[1], AGAIN);
    CHECK(waited(3, 4));
    asks(event_query, (CUstream)&streams[1], AGAIN); /* whose card nobody tells */
    CHECK(waited(4, 4));
    now_is = CUDA_ERROR_NOT_READY;
    for (int i = 0; i < AGAIN; i++)
        cuStreamQuery((CUstream)&streams[i % 2]); /* both by turns: the first counts */
    now_is = CUDA_SUCCESS;
    cuStreamQuery((CUstream)&streams[1]);
    CHECK(waited(4, 4));
    cuStreamQuery((CUstream)&streams[0]);
    CHECK(waited(5, 4));
    what_is_no_wait();
    CHECK(waited(5, 4));
    hami_state.card_count = 1; /* nobody is asked */
    hami_use.cuStreamGetCtx = NULL;
    cuStreamSynchronize((CUstream)&streams[1]);
    CHECK(waited(6, 4));
    printf("each its own\n");
    return 0;
}
