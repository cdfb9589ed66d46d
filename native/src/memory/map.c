/* See map.h. Linear probing; removal shifts back, so there are no tombstones to clean. */
#include "memory/map.h"

#include <stdlib.h>

static size_t home(const hami_map *map, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (map->size - 1);
}

static void place(hami_map *map, hami_entry entry)
{
    size_t at = home(map, entry.key);
    while (map->entries[at].key != 0 && map->entries[at].key != entry.key)
        at = (at + 1) & (map->size - 1);
    map->used += map->entries[at].key == 0;
    map->entries[at] = entry;
}

static bool grow(hami_map *map)
{
    hami_map bigger = {.size = map->size == 0 ? 256 : map->size * 2};
    bigger.entries = calloc(bigger.size, sizeof *bigger.entries);
    if (bigger.entries == NULL)
        return false;
    for (size_t i = 0; i < map->size; i++) {
        if (map->entries[i].key != 0)
            place(&bigger, map->entries[i]);
    }
    free(map->entries);
    map->entries = bigger.entries;
    map->size = bigger.size;
    map->used = bigger.used;
    return true;
}

bool hami_map_put(hami_map *map, hami_entry entry)
{
    if (entry.key == 0)
        return false;
    pthread_mutex_lock(&map->lock);
    const bool room = map->used * 2 < map->size || grow(map);
    if (room)
        place(map, entry);
    pthread_mutex_unlock(&map->lock);
    return room;
}

static size_t find(const hami_map *map, uint64_t key)
{
    if (map->size == 0 || key == 0)
        return map->size;
    size_t at = home(map, key);
    while (map->entries[at].key != 0 && map->entries[at].key != key)
        at = (at + 1) & (map->size - 1);
    return map->entries[at].key == key ? at : map->size;
}

static void erase(hami_map *map, size_t hole)
{
    const size_t mask = map->size - 1;
    for (size_t at = (hole + 1) & mask; map->entries[at].key != 0; at = (at + 1) & mask) {
        /* May the entry at `at` move to the hole? Only if its home does not lie between them. */
        if (((at - home(map, map->entries[at].key)) & mask) >= ((at - hole) & mask)) {
            map->entries[hole] = map->entries[at];
            hole = at;
        }
    }
    map->entries[hole].key = 0;
    map->used--;
}

bool hami_map_get(hami_map *map, uint64_t key, bool remove, hami_entry *out)
{
    pthread_mutex_lock(&map->lock);
    const size_t at = find(map, key);
    const bool there = at < map->size;
    if (there) {
        *out = map->entries[at];
        if (remove)
            erase(map, at);
    }
    pthread_mutex_unlock(&map->lock);
    return there;
}

bool hami_map_take_range(hami_map *map, uint64_t low, uint64_t high, hami_entry *out)
{
    bool there = false;
    pthread_mutex_lock(&map->lock);
    for (size_t at = 0; at < map->size && !there; at++) {
        const uint64_t key = map->entries[at].key;
        if (key != 0 && key >= low && key < high) {
            *out = map->entries[at];
            erase(map, at);
            there = true;
        }
    }
    pthread_mutex_unlock(&map->lock);
    return there;
}

bool hami_map_take_tag(hami_map *map, uint64_t tag, hami_entry *out)
{
    bool there = false;
    pthread_mutex_lock(&map->lock);
    for (size_t at = 0; at < map->size && !there; at++) {
        if (map->entries[at].key != 0 && map->entries[at].tag == tag) {
            *out = map->entries[at];
            erase(map, at);
            there = true;
        }
    }
    pthread_mutex_unlock(&map->lock);
    return there;
}

void hami_map_retag(hami_map *map, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&map->lock);
    for (size_t at = 0; at < map->size; at++) {
        if (map->entries[at].key != 0 && map->entries[at].tag == from)
            map->entries[at].tag = to;
    }
    pthread_mutex_unlock(&map->lock);
}

void hami_map_each(hami_map *map, void (*visit)(hami_entry *entry, void *argument), void *argument)
{
    pthread_mutex_lock(&map->lock);
    for (size_t at = 0; at < map->size; at++) {
        if (map->entries[at].key != 0)
            visit(&map->entries[at], argument);
    }
    pthread_mutex_unlock(&map->lock);
}
