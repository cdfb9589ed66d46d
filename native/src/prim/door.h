/*
 * A lock for what asks a driver that may take seconds, while the program's handlers run. One of them may call us again in there, jump out of it or end its thread:
 *
 *     interrupted, and called again               goes through without the lock, which is left by who was interrupted
 *     jumped out of, and the thread comes again   has it, as if it had left before; from deeper in its stack it is taken for interrupted
 *     the thread has ended                        whoever waits has it
 *
 * Only where a handler has jumped out and its thread never comes again, or only so, do others wait on. 0.4 us to enter and leave: not for what is called often.
 */
#ifndef HAMI_DOOR_H
#define HAMI_DOOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* All 0: nobody is in there. */
typedef struct {
    _Atomic uint32_t owner; /* thread, as the kernel knows it; 0: nobody */
    uintptr_t frame;        /* of its stack, where it came in; these two are the owner's */
    int stay;               /* whether it could be cancelled then: it is not meanwhile */
} hami_door;

/* False: goes through, and does not leave. */
bool hami_door_enter(hami_door *door);
void hami_door_leave(hami_door *door);

#endif
