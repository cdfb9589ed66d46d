/* The map, against a plain list. See units.h. */
#include <string.h>

#include "memory/map.h"
#include "units.h"

void map(void)
{
    enum { KEYS = 700 };
    static int64_t list[KEYS];
    hami_map m = HAMI_MAP_INIT;
    hami_entry e;
    memset(list, 0xff, sizeof list);
    for (int i = 0; i < 400000; i++) {
        const uint64_t k = dice() % KEYS, key = (k + 1) << 21; /* as addresses are */
        if (dice() % 2) {
            list[k] = (int64_t)(dice() % 1000);
            CHECK(hami_map_put(&m, (hami_entry){.key = key, .bytes = list[k], .tag = k % 7}));
        } else {
            const bool there = hami_map_get(&m, key, dice() % 2, &e);
            CHECK(there == (list[k] >= 0) && (!there || e.bytes == list[k]));
            if (!hami_map_get(&m, key, false, &e))
                list[k] = -1;
        }
    }
    int with_tag = 0;
    for (int k = 0; k < KEYS; k++)
        with_tag += list[k] >= 0 && k % 7 == 3;
    for (; with_tag > 0; with_tag--)
        CHECK(hami_map_take_tag(&m, 3, &e) && e.tag == 3);
    CHECK(!hami_map_take_tag(&m, 3, &e));
    CHECK(!hami_map_put(&m, (hami_entry){.key = 0}));
    free(m.entries);
}
