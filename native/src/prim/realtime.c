/* prim.h, of threads that run in real time. */
#define _GNU_SOURCE
#include "prim.h"

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

pid_t hami_thread(void)
{
    return (pid_t)syscall(SYS_gettid);
}

int hami_realtime(void)
{
    struct sched_param own;
    return sched_getparam(0, &own) == 0 ? own.sched_priority : 0;
}

bool hami_run_realtime(pid_t thread, int priority)
{
    const struct sched_param wanted = {.sched_priority = priority};
    const int kept = errno;
    const bool done = sched_setscheduler(thread, SCHED_FIFO, &wanted) == 0;
    errno = kept;
    return done;
}
