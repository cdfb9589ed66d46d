/* Who waits for his budget wakes when it is there: nothing is polled every so many milliseconds. See units.h. */
#include "prim/prim.h"
#include "units.h"

enum { TIMES = 21, WAIT_NS = 2 * 1000 * 1000, LATE_NS = 4 * 1000 * 1000 /* the middle one; a busy machine makes some late */ };

static int by_size(const void *a, const void *b)
{
    const int64_t one = *(const int64_t *)a, other = *(const int64_t *)b;
    return one < other ? -1 : one > other;
}

void sleeps(void)
{
    int64_t late[TIMES];
    for (int i = 0; i < TIMES; i++) {
        const int64_t deadline = hami_now_ns() + WAIT_NS;
        hami_sleep_until_ns(deadline);
        late[i] = hami_now_ns() - deadline;
        CHECK(late[i] >= 0);
    }
    qsort(late, TIMES, sizeof late[0], by_size);
    CHECK(late[TIMES / 2] < LATE_NS);
}
