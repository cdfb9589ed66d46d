/*
 * Of several cards the one that is waited for is told so, whichever context is current: wait.c, with the driver played. A card that is told of a wait on
 * another would take what its host leaves idle there for work.
 */
#include <stdio.h>

#include "check.h"
#include "pay/wait.c"

hami_state_t hami_state = {.card_count = 2};
_Atomic int hami_throttling = 1;
hami_uses hami_use;
hami_behind_t hami_behind;

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

static bool waited(uint32_t first, uint32_t second)
{
    return hami_state.cards[0].pacer.had.waits == first && hami_state.cards[1].pacer.had.waits == second;
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
    CHECK(cuCtxSynchronize_v2((CUcontext)&contexts[0]) == CUDA_SUCCESS && waited(1, 0));
    CHECK(cuCtxSynchronize_v2((CUcontext)&contexts[1]) == CUDA_ERROR_NOT_READY && waited(1, 1));
    CHECK(cuStreamSynchronize((CUstream)&streams[0]) == CUDA_SUCCESS && waited(2, 1));
    CHECK(cuStreamSynchronize((CUstream)&streams[1]) == CUDA_ERROR_NOT_READY && waited(2, 2));
    cuStreamSynchronize(NULL);
    CHECK(waited(3, 2));
    hami_state.card_count = 1; /* nobody is asked */
    hami_use.cuStreamGetCtx = NULL;
    cuStreamSynchronize((CUstream)&streams[1]);
    CHECK(waited(4, 2));
    printf("each its own\n");
    return 0;
}
