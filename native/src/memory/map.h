/* A hash map from 64-bit keys (addresses, handles) to what is charged for them. One short lock; O(1); grows. */
#ifndef HAMI_MAP_H
#define HAMI_MAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t key; /* 0: free, so the key 0 cannot be stored */
    int64_t bytes;
    uint64_t tag;  /* the owner's own */
    int16_t card;
    int16_t kind;
    int32_t spare; /* of linear memory: the mark of its descriptors */
} hami_entry;

typedef struct {
    pthread_mutex_t lock;
    hami_entry *entries;
    size_t size; /* a power of two, or 0 */
    size_t used;
} hami_map;

#define HAMI_MAP_INIT {.lock = PTHREAD_MUTEX_INITIALIZER}

/* Adds or replaces. False: no memory. */
bool hami_map_put(hami_map *map, hami_entry entry);

/* Looks up; with `remove` also takes it out. False: not there. */
bool hami_map_get(hami_map *map, uint64_t key, bool remove, hami_entry *out);

/* Takes out any one entry with low <= key < high. False: none. O(size). */
bool hami_map_take_range(hami_map *map, uint64_t low, uint64_t high, hami_entry *out);

/* Takes out any one entry with that tag. False: none. O(size). */
bool hami_map_take_tag(hami_map *map, uint64_t tag, hami_entry *out);

/* Gives all entries with one tag another. O(size). */
void hami_map_retag(hami_map *map, uint64_t from, uint64_t to);

/* Calls `visit` for each entry, under the lock; it may change anything but the key. */
void hami_map_each(hami_map *map, void (*visit)(hami_entry *entry, void *argument), void *argument);

#endif
