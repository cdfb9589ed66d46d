/* Launches of several threads by tenths of a second, so that what a program takes to begin can be left out. See probe.h. */
#include <stdatomic.h>
#include <stdio.h>

#include "probe.h"

enum { TENTH_NS = 100000000, TENTHS = 6000 };

static _Atomic long long counted[TENTHS];

void count_launches(int64_t from, int64_t now, int launches)
{
    const int64_t tenth = (now - from) / TENTH_NS;
    if (tenth >= 0 && tenth < TENTHS)
        atomic_fetch_add_explicit(&counted[tenth], launches, memory_order_relaxed);
}

void print_tenths(double seconds)
{
    printf("\"tenths\": [");
    for (int i = 0; i < TENTHS && i < (int)(seconds * 10); i++)
        printf("%s%lld", i ? "," : "", counted[i]);
    printf("]");
}
