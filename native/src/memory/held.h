/*
 * Charges that end with what a program was given: linear memory, by its address; arrays, mipmaps and memory of other interfaces, by their handles.
 */
#ifndef HAMI_HELD_H
#define HAMI_HELD_H

#include "memory/ipc.h"
#include "memory/map.h"
#include "process/state.h"

extern hami_map hami_buffers; /* address -> charge */
extern hami_map hami_arrays;  /* array, mipmap or external memory -> charge */

/* Writes down what was charged for `key` in the current context. Cannot be remembered: charged until the process ends, which errs safely. */
void hami_remember(hami_map *map, uint64_t key, hami_card *card, hami_kind kind, int64_t bytes);

/* Ends the charge. `offer`: its key, where others may have it mapped; else 0. */
void hami_forget(hami_entry entry, uint64_t offer);

/*
 * Frees through `call`. The entry leaves the map first: once the driver has freed, another thread may get the address. A forked child asks
 * nobody: another thread may have had the lock.
 */
#define HAMI_FREE(map, key, call)                                       \
    do {                                                                \
        hami_entry entry;                                               \
        if (!atomic_load(&hami_active))                                 \
            return (call);                                              \
        const bool ours = hami_map_get((map), (uint64_t)(key), true, &entry); \
        const uint64_t offer = ours && (map) == &hami_buffers ? hami_offer_leaves(key) : 0; \
        hami_card *card_ = &hami_state.cards[ours ? entry.card : 0];    \
        if (ours)                                                       \
            hami_asks(card_);                                           \
        const CUresult result = (call);                                 \
        if (ours && result == CUDA_SUCCESS) {                           \
            hami_forget(entry, offer);                                  \
        } else if (ours) {                                              \
            hami_map_put((map), entry);                                 \
            hami_offer_stays(key, offer);                               \
        }                                                               \
        if (ours)                                                       \
            hami_asked(card_);                                          \
        return result;                                                  \
    } while (0)

#endif
