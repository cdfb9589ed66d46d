/*
 * Threads of several real-time ranks that close gates at the same moment: watch.c, with the kernel played.
 *
 * While the one has who opens gates raised for itself, another, of a higher rank, comes. Who is told that its gates are opened must be right: it spins until
 * they are, and whatever is below it gets no processor meanwhile.
 */
#include <stdio.h>

#include "check.h"
#include "process/watch.c"

enum { OPENER = 77, LOW = 10, HIGH = 20 };

static int rank_now = LOW, kernels; /* of the thread that asks; what the kernel was told last */
static bool other_comes, other_told;

int hami_realtime(void)
{
    return rank_now;
}

bool hami_run_realtime(pid_t thread, int priority)
{
    CHECK(thread == OPENER);
    if (other_comes) { /* once */
        other_comes = false;
        rank_now = HIGH;
        other_told = hami_watch_outranks();
        rank_now = LOW;
    }
    kernels = priority;
    return true;
}

int main(void)
{
    atomic_store(&opener, OPENER);
    other_comes = true;
    CHECK(hami_watch_outranks() && kernels > LOW);
    CHECK(!other_told || kernels > HIGH);
    rank_now = HIGH; /* nobody is refused for good */
    CHECK(hami_watch_outranks() && kernels > HIGH);
    rank_now = LOW;
    CHECK(hami_watch_outranks() && kernels > HIGH);
    printf("before all\n");
    return 0;
}
