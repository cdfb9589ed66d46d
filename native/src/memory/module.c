/*
 * Hooks of modules and libraries: code and global data.
 *
 * What a plain cubin takes can be read from it, and is reserved beforehand: a library's, too, which is loaded at its first use. Of PTX, of what is packed or in a file the size
 * shows only afterwards, by NVML: where little is left such loads are made one at a time, and what overdraws the slice is
 * undone. Where there is no NVML all are made one at a time, and counted by the driver's word on the whole card.
 */
#include "memory/context.h"
#include "memory/image.h"
#include "memory/local.h"
#include "memory/map.h"
#include "memory/unseen.h"
#include "pay/capture.h"
#include "process/state.h"

enum { NEAR_BYTES = 1 << 30, LARGE_BYTES = 16 << 20, PATIENCE_NS = 1000 * 1000 * 1000 }; /* as soon as the watch sees it, anyway */

static hami_map modules = HAMI_MAP_INIT; /* module or library -> what was reserved for it; tag: a module's context, a library is of none */

typedef struct {
    hami_card *card;
    int64_t reserved; /* bytes */
    bool claimed, library;
    bool unseen; /* there is a limit, and no NVML */
    hami_unseen before;
} loading;

/* Less than one part in `parts` of the limit is left, or less than 1 GiB. */
static bool scarce(hami_card *card, int parts)
{
    const hami_slice slice = hami_slice_of(card);
    const int64_t left = slice.limit - slice.used;
    return slice.limit != HAMI_UNLIMITED && (left < NEAR_BYTES || left < slice.limit / parts);
}

/* `image`: NULL where it cannot be looked at. */
static bool load_begin(loading *l, const void *image, bool library)
{
    *l = (loading){.card = hami_card_now(), .library = library};
    if (l->card == NULL)
        return true;
    l->reserved = hami_image_bytes(image);
    l->unseen = atomic_load(&l->card->limit) != HAMI_UNLIMITED && hami_unseen_here(l->card);
    if (l->reserved > 0 && !hami_take(l->card, HAMI_CONTEXT, l->reserved))
        return false;
    l->claimed = (l->unseen || (l->reserved == 0 && scarce(l->card, 2))) && hami_claim(l->card, PATIENCE_NS);
    if (l->unseen)
        l->before = hami_unseen_before(l->card);
    return true;
}

static hami_entry entry_of(const loading *l, const void *module)
{
    CUcontext context = NULL;
    if (!l->library)
        USE(cuCtxGetCurrent, &context);
    return (hami_entry){.key = (uint64_t)(uintptr_t)module,
                        .bytes = l->reserved,
                        .tag = (uint64_t)(uintptr_t)context,
                        .card = (int16_t)(l->card - hami_state.cards)};
}

/*
 * Where there is no NVML: what it took beyond what is charged for it. A library's is counted each time its module is asked for, of which one loads it:
 * the most that was seen counts.
 */
static void count_unseen(const loading *l, const void *module)
{
    const int64_t took = hami_unseen_took(l->card, &l->before);
    hami_entry entry;
    if (!hami_map_get(&modules, (uint64_t)(uintptr_t)module, false, &entry))
        entry = entry_of(l, module);
    if (took <= entry.bytes || entry.card != (int16_t)(l->card - hami_state.cards))
        return;
    hami_move(l->card, HAMI_CONTEXT, entry.bytes, took);
    entry.bytes = took;
    hami_map_put(&modules, entry);
}

static void forget(hami_entry entry)
{
    hami_give(&hami_state.cards[entry.card], HAMI_CONTEXT, entry.bytes);
}

static void gone(const void *module)
{
    hami_entry entry;
    if (hami_map_get(&modules, (uint64_t)(uintptr_t)module, true, &entry))
        forget(entry);
}

void hami_modules_rename(CUcontext from, CUcontext to)
{
    hami_map_retag(&modules, (uint64_t)(uintptr_t)from, (uint64_t)(uintptr_t)to);
}

void hami_modules_gone(CUcontext context)
{
    hami_entry entry;
    while (hami_map_take_tag(&modules, (uint64_t)(uintptr_t)context, &entry))
        forget(entry);
}

/* True when what was loaded fits; otherwise the caller undoes it, and says so. `module`: or library. */
static bool load_end(loading *l, CUresult result, const void *module)
{
    if (l->card == NULL)
        return true;
    if (result != CUDA_SUCCESS)
        hami_give(l->card, HAMI_CONTEXT, l->reserved);
    else if (l->reserved > 0)
        hami_map_put(&modules, entry_of(l, module));
    if (l->reserved > 0)
        hami_asked(l->card);
    if (result == CUDA_SUCCESS && atomic_load(&l->card->limit) == HAMI_UNLIMITED) {
        atomic_store(&l->card->reconcile_due, true);
    } else if (result == CUDA_SUCCESS) {
        const bool shown = hami_reconcile(l->card);
        if (l->unseen)
            count_unseen(l, module);
        if ((shown || l->unseen) && hami_overdrawn(l->card))
            return false;
    }
    hami_unclaim(l->card, &l->claimed);
    return true;
}

static CUresult undone(loading *l, const void *module)
{
    gone(module);
    hami_reconcile(l->card);
    hami_unclaim(l->card, &l->claimed);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Once more where others' memory may have been counted as its own. */
#define LOAD(name, undo, image, library, after, parameters, ...) \
    CUresult name parameters                               \
    {                                                      \
        loading l;                                         \
        for (int tries = 2;; tries--) {                    \
            if (!load_begin(&l, image, library))           \
                return CUDA_ERROR_OUT_OF_MEMORY;           \
            const CUresult result = BEHIND(name, __VA_ARGS__); \
            after;                                         \
            if (load_end(&l, result, result == CUDA_SUCCESS ? (const void *)*out : NULL)) \
                return result;                             \
            const int mode = hami_relaxed_begin();         \
            BEHIND(undo, *out);                            \
            hami_relaxed_end(mode);                        \
            const CUresult refused = undone(&l, *out);     \
            if (!l.unseen || tries == 1)                   \
                return refused;                            \
        }                                                  \
    }
LOAD(cuModuleLoad, cuModuleUnload, NULL, false, (void)0, (CUmodule * out, const char *path), out, path)
LOAD(cuModuleLoadData, cuModuleUnload, image, false, (void)0, (CUmodule * out, const void *image), out, image)
LOAD(cuModuleLoadFatBinary, cuModuleUnload, NULL, false, (void)0, (CUmodule * out, const void *image), out, image)
LOAD(cuModuleLoadDataEx, cuModuleUnload, image, false, (void)0,
     (CUmodule * out, const void *image, unsigned int count, int *options, void **values), out, image, count, options, values)

/*
 * Libraries load late, at the first use of their module. Near the limit at once, so that too much can still be undone; and where much was reserved: what is
 * charged and not on the card NVML does not show, and that would seem to be less of what only NVML shows. Without NVML always: only so it can be counted.
 */
static bool loads_now(const loading *l)
{
    if (l->unseen)
        return true;
    if (l->reserved == 0)
        return scarce(l->card, 4);
    return l->reserved >= LARGE_BYTES && atomic_load(&l->card->limit) != HAMI_UNLIMITED && !hami_capturing();
}

static void load_now(const loading *l, CUresult result, CUlibrary *library)
{
    CUmodule module;
    if (result != CUDA_SUCCESS || l->card == NULL || !loads_now(l))
        return;
    const int mode = hami_relaxed_begin(); /* the program has not asked for it to be loaded, and may capture */
    BEHIND(cuLibraryGetModule, &module, *library);
    hami_relaxed_end(mode);
}

LOAD(cuLibraryLoadData, cuLibraryUnload, code, true, load_now(&l, result, out),
     (CUlibrary * out, const void *code, int *jit, void **jit_values, unsigned int jit_count, int *options, void **values,
      unsigned int count),
     out, code, jit, jit_values, jit_count, options, values, count)
LOAD(cuLibraryLoadFromFile, cuLibraryUnload, NULL, true, load_now(&l, result, out),
     (CUlibrary * out, const char *path, int *jit, void **jit_values, unsigned int jit_count, int *options, void **values,
      unsigned int count),
     out, path, jit, jit_values, jit_count, options, values, count)

/* Loads the library; what that overdraws cannot be undone here, but nothing more is had until it is unloaded. */
CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    loading l;
    load_begin(&l, NULL, true);
    const CUresult result = BEHIND(cuLibraryGetModule, out, library);
    return load_end(&l, result, library) ? result : undone(&l, NULL);
}

/* The entry leaves the map first: once the driver has unloaded, another thread may get the handle. */
#define UNLOAD(name, type)                                                                           \
    CUresult name(type what)                                                                         \
    {                                                                                                \
        hami_entry entry;                                                                            \
        if (!atomic_load(&hami_active))                                                              \
            return BEHIND(name, what);                                                               \
        const bool ours = hami_map_get(&modules, (uint64_t)(uintptr_t)what, true, &entry);           \
        const uint64_t ticket = hami_local_unloading(what);                                          \
        const CUresult result = BEHIND(name, what);                                                  \
        if (ours && result == CUDA_SUCCESS)                                                          \
            forget(entry);                                                                           \
        else if (ours)                                                                               \
            hami_map_put(&modules, entry);                                                           \
        hami_local_unloaded(what, ticket, result == CUDA_SUCCESS);                                   \
        hami_all_due();                                                                              \
        return result;                                                                               \
    }
UNLOAD(cuModuleUnload, CUmodule)
UNLOAD(cuLibraryUnload, CUlibrary)
