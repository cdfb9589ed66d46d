/*
 * Hooks of what gives functions out, for the local memory that they will take.
 *
 * A context has so much of it for each thread that its card can run (1 KiB, or the limit of its stack), and takes more at the
 * launch of the first function that needs more: 16 KiB a thread are 4 GiB of an H200 (measured). How much a function needs the
 * driver says when it has given the function out. Such a function waits: its launch takes the way on which launches are paid
 * for, and there it is reserved; all others never know. A kernel of a library, which is of no context, waits again when
 * another context is made, until all have what it needs.
 */
#include "memory/local.h"

#include <stdlib.h>

#include "memory/map.h"
#include "pay/capture.h"

enum { CONTEXTS = 64 /* at first */, GROWN = 2 /* limits of memory for all threads together */, BASE_BYTES = 1024, UNKNOWN = -1 };
enum { MOST = 60000 /* what is counted in 16 bits */, MOST_UNKNOWN = 512 };
enum { LOCAL_SIZE_BYTES = 3, MULTIPROCESSORS = 16, THREADS = 39 }; /* attributes */
enum { WAITS = 1, RESTS /* a kernel that every context has enough for */ };

static_assert(HAMI_LOCAL_BUCKETS == 1 << 10, "a bucket is the top ten bits of the hash");

_Atomic uint16_t hami_local_buckets[HAMI_LOCAL_BUCKETS];

/* Function or kernel -> bytes a thread, or UNKNOWN. Tag: its module or library; kind 1: a library's kernel; spare: WAITS or RESTS. */
static hami_map functions = HAMI_MAP_INIT;
static pthread_mutex_t listing = PTHREAD_MUTEX_INITIALIZER; /* guards it, and what is counted of it */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* never had at the same time */

typedef struct {
    CUcontext context; /* NULL: free */
    hami_card *card;
    size_t has;          /* bytes a thread */
    int64_t charged;     /* bytes */
    size_t most[GROWN];  /* the largest values that were set, bytes; 0: none was */
    int64_t grown;       /* charged for those, bytes */
} place;

static place *contexts; /* all under the lock */
static int context_places;

static bool grow(void)
{
    const int before = context_places, now = before == 0 ? CONTEXTS : 2 * before;
    place *more = realloc(contexts, (size_t)now * sizeof *more);
    if (more == NULL)
        return false;
    for (int i = before; i < now; i++)
        more[i] = (place){0};
    contexts = more;
    context_places = now;
    return true;
}

/* -1: no memory to remember it. Under the lock. */
static int place_of(CUcontext context, hami_card *card)
{
    const int before = context_places;
    int free_place = -1;
    for (int i = 0; i < context_places; i++) {
        if (contexts[i].context == context)
            return i;
        if (contexts[i].context == NULL && free_place < 0)
            free_place = i;
    }
    if (free_place < 0 && grow())
        free_place = before;
    if (free_place >= 0)
        contexts[free_place] = (place){.context = context, .card = card, .has = BASE_BYTES};
    return free_place;
}

/* As the last, of the current context, whose stack may have been made larger unseen. */
static int current_place(hami_card *card)
{
    CUcontext context = NULL;
    size_t stack = 0;
    if (USE(cuCtxGetCurrent, &context) != CUDA_SUCCESS || context == NULL)
        return -1;
    const int at = place_of(context, card);
    if (at >= 0 && contexts[at].charged == 0 && USE(cuCtxGetLimit, &stack, CU_LIMIT_STACK_SIZE) == CUDA_SUCCESS &&
        stack > contexts[at].has)
        contexts[at].has = stack;
    return at;
}

/* Every context has so much a thread, the current one included. */
static bool all_have(hami_card *card, int bytes_a_thread)
{
    pthread_mutex_lock(&lock);
    bool have = current_place(card) >= 0;
    for (int i = 0; i < context_places; i++)
        have &= contexts[i].context == NULL || contexts[i].has >= (size_t)bytes_a_thread;
    pthread_mutex_unlock(&lock);
    return have;
}

static int64_t threads_of(const hami_card *card)
{
    int processors = 0, threads = 0;
    if (USE(cuDeviceGetAttribute, &processors, MULTIPROCESSORS, card->device) != CUDA_SUCCESS ||
        USE(cuDeviceGetAttribute, &threads, THREADS, card->device) != CUDA_SUCCESS)
        return 0;
    return (int64_t)processors * threads;
}

/* What there was a thread, and what was taken for all. */
static bool reserve(hami_card *card, size_t bytes_a_thread, size_t *before, int64_t *taken)
{
    bool fits = true;
    pthread_mutex_lock(&lock);
    const int at = current_place(card); /* where there is none the driver will say so */
    if (at >= 0 && bytes_a_thread > contexts[at].has) {
        int64_t more;
        *before = contexts[at].has;
        if (__builtin_mul_overflow((int64_t)(bytes_a_thread - contexts[at].has), threads_of(card), &more))
            more = INT64_MAX;
        fits = hami_take(card, HAMI_CONTEXT, more);
        if (fits) {
            hami_asked(card); /* the driver takes it with the launch */
            contexts[at].has = bytes_a_thread;
            contexts[at].charged += more;
            *taken = more;
        }
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

bool hami_local_reserve(hami_card *card, size_t bytes_a_thread)
{
    size_t before = 0;
    int64_t taken = 0;
    return reserve(card, bytes_a_thread, &before, &taken);
}

/* ---- limits that a program sets ---- */

static int grown_by(int limit)
{
    return limit == CU_LIMIT_MALLOC_HEAP_SIZE ? 0 : limit == CU_LIMIT_PRINTF_FIFO_SIZE ? 1 : -1;
}

/* What was set lower again was not given back, so it is there already. */
static bool grow_heap(hami_card *card, int which, size_t value, hami_local_taken *taken)
{
    size_t now = 0;
    pthread_mutex_lock(&lock);
    const int at = current_place(card);
    if (at >= 0 && USE(cuCtxGetLimit, &now, taken->limit) == CUDA_SUCCESS) {
        place *of = &contexts[at];
        taken->before = of->most[which];
        const size_t there = now > of->most[which] ? now : of->most[which];
        if (value > there && hami_take(card, HAMI_CONTEXT, hami_linear_bytes(value - there)))
            taken->bytes = hami_linear_bytes(value - there);
        else if (value > there)
            taken->bytes = -1;
        if (taken->bytes > 0)
            hami_asked(card); /* likewise: with the call that follows */
        of->most[which] = taken->bytes > 0 ? value : of->most[which];
        of->grown += taken->bytes > 0 ? taken->bytes : 0;
    }
    pthread_mutex_unlock(&lock);
    return taken->bytes >= 0;
}

bool hami_local_limit(hami_card *card, int limit, size_t value, hami_local_taken *taken)
{
    *taken = (hami_local_taken){.limit = limit, .value = value};
    if (grown_by(limit) >= 0)
        return grow_heap(card, grown_by(limit), value, taken);
    return limit != CU_LIMIT_STACK_SIZE || reserve(card, value, &taken->before, &taken->bytes);
}

/* Where another thread has needed still more meanwhile, it is that one's now. */
void hami_local_refused(hami_card *card, const hami_local_taken *taken)
{
    const int which = grown_by(taken->limit);
    pthread_mutex_lock(&lock);
    const int at = taken->bytes > 0 ? current_place(card) : -1;
    size_t *there = at < 0 ? NULL : which >= 0 ? &contexts[at].most[which] : &contexts[at].has;
    if (there != NULL && *there == taken->value) {
        *there = taken->before;
        *(which >= 0 ? &contexts[at].grown : &contexts[at].charged) -= taken->bytes;
        hami_give(card, HAMI_CONTEXT, taken->bytes);
    }
    pthread_mutex_unlock(&lock);
}

/* Bytes a thread. */
static int asked(const void *function, const hami_card *card)
{
    int bytes = 0;
    const int mode = hami_relaxed_begin(); /* to ask may load it */
    if (USE(cuFuncGetAttribute, &bytes, LOCAL_SIZE_BYTES, (CUfunction)(uintptr_t)function) != CUDA_SUCCESS &&
        USE(cuKernelGetAttribute, &bytes, LOCAL_SIZE_BYTES, (CUkernel)(uintptr_t)function, card->device) != CUDA_SUCCESS)
        bytes = 0;
    hami_relaxed_end(mode);
    return bytes;
}

/* ---- functions that wait; all under `listing` ---- */

static void count(uint64_t function, int more)
{
    atomic_fetch_add(&hami_local_buckets[hami_local_bucket((const void *)(uintptr_t)function)], (uint16_t)more);
    const uint16_t before = atomic_fetch_add(&hami_hot.waiting, (uint16_t)more);
    if (before == 0 || before + more == 0)
        hami_routes_update();
}

static void leave(hami_entry entry)
{
    if (entry.spare == WAITS)
        count(entry.key, -1);
}

static void wake(hami_entry *entry, void *unused)
{
    (void)unused;
    if (entry->spare == RESTS)
        count(entry->key, 1);
    entry->spare = WAITS;
}

/* Replaces what was known of its address, which may be another function's by now. `state` 0: nothing is to be known. */
static void put(hami_entry entry, int state)
{
    hami_entry before;
    pthread_mutex_lock(&listing);
    const bool there = hami_map_get(&functions, entry.key, state == 0, &before);
    entry.spare = state;
    if (there) {
        leave(before);
        entry.kind |= before.kind; /* a kernel may be its own function */
    }
    if (state != 0 && hami_map_put(&functions, entry) && state == WAITS)
        count(entry.key, 1);
    pthread_mutex_unlock(&listing);
}

bool hami_local_take(const void *function)
{
    hami_entry entry;
    hami_card *card = hami_card_now();
    if (card == NULL || !hami_map_get(&functions, (uint64_t)(uintptr_t)function, false, &entry) || entry.spare != WAITS)
        return true;
    if (entry.bytes == UNKNOWN)
        entry.bytes = asked(function, card);
    if (!hami_local_reserve(card, (size_t)entry.bytes))
        return false; /* it goes on waiting, for whoever launches it next */
    const bool large = entry.kind != 0 && entry.bytes > BASE_BYTES;
    if (!large || all_have(card, (int)entry.bytes))
        put(entry, large ? RESTS : 0);
    return true;
}

void hami_local_made(CUcontext context, hami_card *card)
{
    pthread_mutex_lock(&lock);
    place_of(context, card);
    pthread_mutex_unlock(&lock);
    pthread_mutex_lock(&listing);
    hami_map_each(&functions, wake, NULL);
    pthread_mutex_unlock(&listing);
}

hami_card *hami_local_card_of(CUcontext context)
{
    hami_card *card = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < context_places && context != NULL; i++)
        card = contexts[i].context == context ? contexts[i].card : card;
    pthread_mutex_unlock(&lock);
    return card;
}

uint64_t hami_local_unloading(const void *owner)
{
    static _Atomic uint64_t last = 1; /* odd, as no handle is */
    const uint64_t ticket = atomic_fetch_add(&last, 2);
    hami_map_retag(&functions, (uint64_t)(uintptr_t)owner, ticket);
    return ticket;
}

void hami_local_unloaded(const void *owner, uint64_t ticket, bool gone)
{
    hami_entry entry;
    if (!gone) {
        hami_map_retag(&functions, ticket, (uint64_t)(uintptr_t)owner);
        return;
    }
    pthread_mutex_lock(&listing);
    while (hami_map_take_tag(&functions, ticket, &entry))
        leave(entry);
    pthread_mutex_unlock(&listing);
}

/* Where the one has a place and the other too, the one's goes into the other's. */
void hami_local_rename(CUcontext from, CUcontext to)
{
    place *one = NULL, *other = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < context_places; i++) {
        one = contexts[i].context == from ? &contexts[i] : one;
        other = contexts[i].context == to ? &contexts[i] : other;
    }
    if (one != NULL && other != NULL) {
        other->has = one->has > other->has ? one->has : other->has;
        other->charged += one->charged;
        other->grown += one->grown;
        one->context = NULL;
    } else if (one != NULL) {
        one->context = to;
    }
    pthread_mutex_unlock(&lock);
}

void hami_local_gone(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < context_places; i++) {
        if (contexts[i].context == context && context != NULL) {
            hami_give(contexts[i].card, HAMI_CONTEXT, contexts[i].charged + contexts[i].grown);
            contexts[i].context = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
}

/* ---- hooks ---- */

/*
 * Asking loads a function that has not been loaded yet, so such a one is asked when it is about to be launched; but not where
 * a program takes thousands out and launches few, since most launches would be looked at then. A slice of the whole card's memory
 * waits for nothing. `owner`: its module or library, NULL: not known.
 */
static void given_out(const void *function, const void *owner, bool of_library)
{
    int loaded = 1;
    hami_card *card = hami_card_now();
    const uint16_t waiting = atomic_load(&hami_hot.waiting);
    hami_entry entry = {.key = (uint64_t)(uintptr_t)function, .tag = (uint64_t)(uintptr_t)owner, .kind = of_library};
    if (card == NULL || atomic_load(&card->limit) == HAMI_UNLIMITED)
        return;
    if (USE(cuFuncIsLoaded, &loaded, (CUfunction)(uintptr_t)function) == CUDA_SUCCESS && loaded == 0) {
        entry.bytes = UNKNOWN;
        if (waiting < MOST_UNKNOWN)
            put(entry, WAITS);
        return;
    }
    entry.bytes = asked(function, card);
    if (entry.bytes <= BASE_BYTES)
        put(entry, 0);
    else if (all_have(card, (int)entry.bytes))
        put(entry, of_library ? RESTS : 0);
    else if (waiting < MOST)
        put(entry, WAITS);
}

static CUlibrary library_of(CUkernel kernel)
{
    CUlibrary library = NULL;
    return USE(cuKernelGetLibrary, &library, kernel) == CUDA_SUCCESS ? library : NULL;
}

#define GIVES_OUT(name, of, of_library, parameters, ...)    \
    CUresult name parameters                                \
    {                                                       \
        const CUresult result = BEHIND(name, __VA_ARGS__);  \
        if (result == CUDA_SUCCESS)                         \
            given_out(*out, of, of_library);                \
        return result;                                      \
    }
GIVES_OUT(cuModuleGetFunction, module, false, (CUfunction * out, CUmodule module, const char *name), out, module, name)
GIVES_OUT(cuKernelGetFunction, library_of(kernel), false, (CUfunction * out, CUkernel kernel), out, kernel)
GIVES_OUT(cuLibraryGetKernel, library, true, (CUkernel * out, CUlibrary library, const char *name), out, library, name)

#define GIVES_ALL_OUT(name, count_of, of_library, type, owner)                                       \
    CUresult name(type *out, unsigned int most, owner all)                                           \
    {                                                                                                \
        unsigned int number = 0;                                                                     \
        const CUresult result = BEHIND(name, out, most, all);                                        \
        if (result != CUDA_SUCCESS || USE(count_of, &number, all) != CUDA_SUCCESS)                   \
            return result;                                                                           \
        for (unsigned int i = 0; i < number && i < most; i++)                                        \
            given_out(out[i], all, of_library);                                                      \
        return result;                                                                               \
    }
GIVES_ALL_OUT(cuModuleEnumerateFunctions, cuModuleGetFunctionCount, false, CUfunction, CUmodule)
GIVES_ALL_OUT(cuLibraryEnumerateKernels, cuLibraryGetKernelCount, true, CUkernel, CUlibrary)
