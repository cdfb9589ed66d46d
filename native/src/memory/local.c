/*
 * Hooks of what gives functions out, for the local memory that they will take.
 *
 * A context has so much of it for each thread that its card can run (1 KiB, or the limit of its stack), and takes more at the
 * launch of the first function that needs more: 16 KiB a thread are 4 GiB of an H200 (measured). How much a function needs the
 * driver says when it has given the function out. While such a function has not been launched, launches
 * take the way on which they are paid for, and there it is reserved; all others never know.
 */
#include "memory/local.h"

#include "memory/map.h"

enum { CONTEXTS = 64, BASE_BYTES = 1024, UNKNOWN = -1, MOST_UNKNOWN = 64 };
enum { LOCAL_SIZE_BYTES = 3, MULTIPROCESSORS = 16, THREADS = 39 }; /* attributes */

_Atomic int hami_local_waiting;

static hami_map functions = HAMI_MAP_INIT; /* function or kernel that waits -> bytes a thread, or UNKNOWN */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    CUcontext context; /* NULL: free */
    hami_card *card;
    size_t has;      /* bytes a thread */
    int64_t charged; /* bytes */
} contexts[CONTEXTS]; /* under the lock */

/* Of the current context; -1: no room to remember it. Under the lock. */
static int place_of(CUcontext context, hami_card *card)
{
    int free_place = -1;
    for (int i = 0; i < CONTEXTS; i++) {
        if (contexts[i].context == context)
            return i;
        if (contexts[i].context == NULL && free_place < 0)
            free_place = i;
    }
    if (free_place >= 0) {
        size_t stack = 0;
        contexts[free_place].context = context;
        contexts[free_place].card = card;
        contexts[free_place].charged = 0;
        contexts[free_place].has = USE(cuCtxGetLimit, &stack, CU_LIMIT_STACK_SIZE) == CUDA_SUCCESS && stack > BASE_BYTES ? stack : BASE_BYTES;
    }
    return free_place;
}

static int64_t threads_of(const hami_card *card)
{
    int processors = 0, threads = 0;
    if (USE(cuDeviceGetAttribute, &processors, MULTIPROCESSORS, card->device) != CUDA_SUCCESS ||
        USE(cuDeviceGetAttribute, &threads, THREADS, card->device) != CUDA_SUCCESS)
        return 0;
    return (int64_t)processors * threads;
}

bool hami_local_reserve(hami_card *card, size_t bytes_a_thread)
{
    CUcontext context = NULL;
    bool fits = true;
    if (USE(cuCtxGetCurrent, &context) != CUDA_SUCCESS || context == NULL)
        return true; /* the driver will say so */
    pthread_mutex_lock(&lock);
    const int at = place_of(context, card);
    if (at >= 0 && bytes_a_thread > contexts[at].has) {
        int64_t more;
        if (__builtin_mul_overflow((int64_t)(bytes_a_thread - contexts[at].has), threads_of(card), &more))
            more = INT64_MAX;
        fits = hami_take(card, HAMI_CONTEXT, more);
        if (fits) {
            contexts[at].has = bytes_a_thread;
            contexts[at].charged += more;
        }
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

/* Bytes a thread. */
static int asked(const void *function, const hami_card *card)
{
    int bytes = 0;
    if (USE(cuFuncGetAttribute, &bytes, LOCAL_SIZE_BYTES, (CUfunction)(uintptr_t)function) == CUDA_SUCCESS ||
        USE(cuKernelGetAttribute, &bytes, LOCAL_SIZE_BYTES, (CUkernel)(uintptr_t)function, card->device) == CUDA_SUCCESS)
        return bytes;
    return 0;
}

bool hami_local_take(const void *function)
{
    hami_entry entry;
    hami_card *card = hami_card_now();
    if (card == NULL || !hami_map_get(&functions, (uint64_t)(uintptr_t)function, true, &entry))
        return true;
    if (entry.bytes == UNKNOWN)
        entry.bytes = asked(function, card);
    if (!hami_local_reserve(card, (size_t)entry.bytes)) {
        hami_map_put(&functions, entry);
        return false;
    }
    if (atomic_fetch_sub(&hami_local_waiting, 1) == 1)
        hami_throttle_update();
    return true;
}

void hami_local_gone(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < CONTEXTS; i++) {
        if (contexts[i].context == context && context != NULL) {
            hami_give(contexts[i].card, HAMI_CONTEXT, contexts[i].charged);
            contexts[i].context = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
}

/* ---- hooks ---- */

static bool waits(const void *function, int bytes_a_thread)
{
    hami_entry before;
    if (hami_map_get(&functions, (uint64_t)(uintptr_t)function, false, &before) ||
        !hami_map_put(&functions, (hami_entry){.key = (uint64_t)(uintptr_t)function, .bytes = bytes_a_thread}))
        return false;
    if (atomic_fetch_add(&hami_local_waiting, 1) == 0)
        hami_throttle_update();
    return true;
}

/*
 * Asking loads a function that has not been loaded yet, so such a one is asked when it is about to be launched; but not where
 * a program takes many out and launches few, all of whose launches would be looked at. A kernel of a library can be launched
 * as it is, wherever a function can. A slice of the whole card's memory waits for nothing.
 */
static void given_out(const void *function)
{
    int loaded = 1;
    hami_card *card = hami_card_now();
    if (card == NULL || atomic_load(&card->limit) == HAMI_UNLIMITED)
        return;
    if (USE(cuFuncIsLoaded, &loaded, (CUfunction)(uintptr_t)function) == CUDA_SUCCESS && loaded == 0) {
        if (atomic_load(&hami_local_waiting) < MOST_UNKNOWN)
            waits(function, UNKNOWN);
        return;
    }
    const int bytes = asked(function, card);
    if (bytes > BASE_BYTES)
        waits(function, bytes);
}

#define GIVES_OUT(name, parameters, ...)                    \
    CUresult name parameters                                \
    {                                                       \
        const CUresult result = BEHIND(name, __VA_ARGS__);  \
        if (result == CUDA_SUCCESS)                         \
            given_out(*out);                                \
        return result;                                      \
    }
GIVES_OUT(cuModuleGetFunction, (CUfunction * out, CUmodule module, const char *name), out, module, name)
GIVES_OUT(cuKernelGetFunction, (CUfunction * out, CUkernel kernel), out, kernel)
GIVES_OUT(cuLibraryGetKernel, (CUkernel * out, CUlibrary library, const char *name), out, library, name)

#define GIVES_ALL_OUT(name, count_of, type, owner)                                                   \
    CUresult name(type *out, unsigned int most, owner all)                                           \
    {                                                                                                \
        unsigned int count = 0;                                                                      \
        const CUresult result = BEHIND(name, out, most, all);                                        \
        if (result != CUDA_SUCCESS || USE(count_of, &count, all) != CUDA_SUCCESS)                    \
            return result;                                                                           \
        for (unsigned int i = 0; i < count && i < most; i++)                                         \
            given_out(out[i]);                                                                       \
        return result;                                                                               \
    }
GIVES_ALL_OUT(cuModuleEnumerateFunctions, cuModuleGetFunctionCount, CUfunction, CUmodule)
GIVES_ALL_OUT(cuLibraryEnumerateKernels, cuLibraryGetKernelCount, CUkernel, CUlibrary)
