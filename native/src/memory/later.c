/* See later.h. An event after the free tells when the stream has come there. */
#include "memory/later.h"

#include <stdlib.h>

#include "pay/capture.h"

typedef struct waiting {
    hami_entry entry; /* in none of the maps any more */
    uint64_t offer;
    CUevent event; /* NULL: none could be made; then the charge stands until its context ends */
    uint64_t in;   /* context of the event, which goes with it */
    struct waiting *next;
} waiting;

static waiting *first;
static _Atomic int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */

/* In the stream's own context, which need not be the current one. */
static CUevent mark(CUstream stream, uint64_t *in)
{
    CUcontext current = NULL, own = NULL;
    CUevent event = NULL;
    USE(cuCtxGetCurrent, &current);
    own = USE(cuStreamGetCtx, stream, &own) == CUDA_SUCCESS && own != NULL ? own : current;
    const bool other = own != current;
    *in = (uint64_t)(uintptr_t)own;
    if (other)
        USE(cuCtxSetCurrent, own);
    if (USE(cuEventCreate, &event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS && USE(cuEventRecord, event, stream) != CUDA_SUCCESS) {
        USE(cuEventDestroy_v2, event);
        event = NULL;
    }
    if (other)
        USE(cuCtxSetCurrent, current);
    return event;
}

/* Where there is no memory to remember it, the charge stands until the process ends. */
static void wait_for(hami_entry entry, uint64_t offer, CUstream stream)
{
    waiting *w = malloc(sizeof *w);
    if (w == NULL)
        return;
    *w = (waiting){.entry = entry, .offer = offer};
    w->event = mark(stream, &w->in);
    pthread_mutex_lock(&lock);
    w->next = first;
    first = w;
    atomic_fetch_add(&count, 1);
    pthread_mutex_unlock(&lock);
}

/* What a capture frees is a graph's; what a pool gave is the pool's, which keeps the bytes until it lets go. */
CUresult hami_free_later(CUdeviceptr address, CUstream stream, CUresult (*call)(CUdeviceptr, CUstream), CUstream in)
{
    hami_entry entry;
    if (!atomic_load(&hami_active) || hami_captured(in) || !hami_map_get(&hami_buffers, address, true, &entry))
        return call(address, stream);
    const uint64_t offer = hami_offer_leaves(address);
    const CUresult result = call(address, stream);
    if (result == CUDA_SUCCESS) {
        wait_for(entry, offer, in);
    } else {
        hami_map_put(&hami_buffers, entry);
        hami_offer_stays(address, offer);
    }
    return result;
}

/*
 * A name that a context has while it ends is odd: nobody asks for an event of one that may be gone. Nor while something is captured, which that could spoil:
 * it may have begun since the one before was asked for.
 */
static bool come_there(const waiting *w)
{
    return !hami_capturing() && (w->in & 1) == 0 && w->event != NULL && USE(cuEventQuery, w->event) == CUDA_SUCCESS;
}

/* Takes out of the list what is chosen, and ends its charge. */
static void end_those(bool (*chosen)(const waiting *w, uint64_t tag), uint64_t tag, bool event_too)
{
    pthread_mutex_lock(&lock);
    for (waiting **at = &first; *at != NULL;) {
        waiting *w = *at;
        if (!chosen(w, tag)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        atomic_fetch_sub(&count, 1);
        if (event_too)
            USE(cuEventDestroy_v2, w->event);
        hami_forget(w->entry, w->offer);
        free(w);
    }
    pthread_mutex_unlock(&lock);
}

static bool is_through(const waiting *w, uint64_t unused)
{
    (void)unused;
    return come_there(w);
}

static bool is_of(const waiting *w, uint64_t context)
{
    return w->entry.tag == context || w->in == context;
}

void hami_later_refresh(void)
{
    if (atomic_load(&count) > 0 && !hami_capturing())
        end_those(is_through, 0, true);
}

void hami_later_pause(void)
{
    if (!atomic_load(&hami_active))
        return; /* in a forked child: another thread may have had the lock */
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
}

void hami_later_rename(CUcontext from, CUcontext to)
{
    const uint64_t before = (uint64_t)(uintptr_t)from, now = (uint64_t)(uintptr_t)to;
    pthread_mutex_lock(&lock);
    for (waiting *w = first; w != NULL; w = w->next) {
        w->entry.tag = w->entry.tag == before ? now : w->entry.tag;
        w->in = w->in == before ? now : w->in;
    }
    pthread_mutex_unlock(&lock);
}

void hami_later_gone(CUcontext context)
{
    end_those(is_of, (uint64_t)(uintptr_t)context, false);
}
