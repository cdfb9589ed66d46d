/*
 * What one thread at a time does, and not for ever: who has it may not come back, since a program's handler can jump out of whatever waits, and a
 * thread can end there. So it is no lock but a time, until which it is somebody's.
 */
#ifndef HAMI_LEASE_H
#define HAMI_LEASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Takes it for so long; what gives it back. 0: another has it. */
static inline int64_t hami_lease_take(_Atomic int64_t *until_ns, int64_t now_ns, int64_t span_ns)
{
    int64_t there = atomic_load(until_ns);
    const int64_t ours = now_ns + span_ns;
    return there <= now_ns && atomic_compare_exchange_strong(until_ns, &there, ours) ? ours : 0;
}

/* True: nobody else has had it since. */
static inline bool hami_lease_holds(const _Atomic int64_t *until_ns, int64_t ours)
{
    return atomic_load(until_ns) == ours;
}

/* Gives it back. False: it has run out, and another has had it since. */
static inline bool hami_lease_end(_Atomic int64_t *until_ns, int64_t ours)
{
    return atomic_compare_exchange_strong(until_ns, &ours, 0);
}

#endif
