/*
 * Linked into a library whose pay/launch.c is compiled with -finstrument-functions: says at the end of a program how many of its kernels' launches
 * went the long way, on which locks are taken and prices looked up, and not from the hook straight on to the driver.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "pay/hot.h"

#define UNSEEN __attribute__((no_instrument_function))

static void *long_way;
static _Atomic long taken;

/* Until the driver has been found it is where all launches go on to. */
UNSEEN __attribute__((constructor)) static void remember(void)
{
    const hami_launch until_found = atomic_load(&hami_hot.behind[HAMI_NEXT_KERNEL]);
    memcpy(&long_way, &until_found, sizeof long_way);
}

UNSEEN __attribute__((destructor)) static void say(void)
{
    fprintf(stderr, "the long way: %ld\n", atomic_load(&taken));
}

UNSEEN __attribute__((visibility("hidden"))) void __cyg_profile_func_enter(void *function, void *from)
{
    (void)from;
    if (function == long_way)
        atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
}

UNSEEN __attribute__((visibility("hidden"))) void __cyg_profile_func_exit(void *function, void *from)
{
    (void)function, (void)from;
}
