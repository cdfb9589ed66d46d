/* See strand.h. */
#include "price/strand.h"

#include "price/bench.h"
#include "pay/capture.h"
#include "prim/prim.h"

enum { MARK_NS = 1000 * 1000 /* so much at most of what only its own thread can mark is left unmarked */ };

/* Unlike the system's numbers, never another thread's later. */
static uint32_t this_thread(void)
{
    static _Atomic uint32_t last;
    static __thread uint32_t own __attribute__((tls_model("initial-exec")));
    return own != 0 ? own : (own = atomic_fetch_add(&last, 1) + 1);
}

/* All or none: who lacks them comes again. */
bool hami_strands_make(hami_strands *all)
{
    if (USE(cuStreamCreate, &all->side, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS)
        return false;
    int ends = 0;
    const bool started = USE(cuEventCreate, &all->start, 0) == CUDA_SUCCESS;
    while (started && ends < HAMI_STRANDS && USE(cuEventCreate, &all->all[ends].end, 0) == CUDA_SUCCESS)
        ends++;
    if (ends == HAMI_STRANDS)
        return true;
    for (int i = 0; i < ends; i++)
        USE(cuEventDestroy_v2, all->all[i].end);
    if (started)
        USE(cuEventDestroy_v2, all->start);
    USE(cuStreamDestroy_v2, all->side);
    return false;
}

bool hami_strands_begin(hami_strands *all)
{
    all->count = 0;
    all->begun_ns = hami_now_ns();
    return !hami_capturing() && USE(cuEventRecord, all->start, all->side) == CUDA_SUCCESS;
}

hami_strand *hami_strand_of(hami_strands *all, CUstream stream)
{
    if (stream == CU_STREAM_LEGACY)
        stream = NULL;
    for (int i = 0; i < all->count; i++) {
        hami_strand *s = &all->all[i];
        if (s->stream == stream && !s->gone && (stream != CU_STREAM_PER_THREAD || s->thread == this_thread()))
            return s;
    }
    if (all->count == HAMI_STRANDS)
        return NULL;
    hami_strand *s = &all->all[all->count++];
    *s = (hami_strand){.stream = stream, .thread = this_thread(), .end = s->end};
    return s;
}

static bool anothers(const hami_strand *s)
{
    return s->stream == CU_STREAM_PER_THREAD && s->thread != this_thread();
}

bool hami_strand_end(hami_strand *s)
{
    if (anothers(s))
        return true;
    if (!s->gone && !s->ended && s->launches > 0 && s->inside == 0 && !hami_capturing())
        s->ended = USE(cuEventRecord, s->end, s->stream) == CUDA_SUCCESS;
    if (s->ended) {
        s->marked = true;
        s->unmarked_ns = 0;
    }
    return s->ended || s->launches == 0;
}

void hami_strand_launched(hami_strand *s, bool last)
{
    if (s->stream == CU_STREAM_PER_THREAD && (last || s->unmarked_ns >= MARK_NS))
        hami_strand_end(s);
}

/* From the start to its end, ns; 0: unknown. Its mark is passed. */
static int64_t span_of(const hami_strands *all, const hami_strand *s)
{
    if (s->launches == 0)
        return 1;
    if (!s->marked)
        return s->through_ns - all->begun_ns;
    const int64_t marked = hami_bench_elapsed(all->start, s->end);
    return marked <= 0 ? 0 : marked + s->unmarked_ns;
}

bool hami_strand_passed(const hami_strands *all, const hami_strand *s)
{
    if (s->marked && USE(cuEventQuery, s->end) == CUDA_ERROR_NOT_READY)
        return false;
    return s->ended || s->launches == 0 || hami_now_ns() >= all->begun_ns + span_of(all, s);
}

int64_t hami_strands_span(const hami_strands *all)
{
    int64_t span = 0;
    for (int i = 0; i < all->count; i++) {
        const int64_t here = span_of(all, &all->all[i]);
        if (here <= 0)
            return 0;
        span = here > span ? here : span;
    }
    return span;
}

int hami_strands_used(const hami_strands *all)
{
    int used = 0;
    for (int i = 0; i < all->count; i++)
        used += all->all[i].launches > 0;
    return used;
}

void hami_strands_gone(hami_strands *all, CUstream stream)
{
    for (int i = 0; i < all->count; i++) {
        hami_strand *s = &all->all[i];
        if (s->stream == stream && stream != NULL && stream != CU_STREAM_PER_THREAD) {
            hami_strand_end(s);
            s->gone = true;
        }
    }
}
