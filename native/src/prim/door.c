/* See door.h. */
#define _GNU_SOURCE
#include "prim/door.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "prim/prim.h"

enum {
    LOOK_NS = 50 * 1000 * 1000,
    SIGNAL_FRAME = 512 /* bytes at least, that a handler's stack is below what it has interrupted; frames of our own calls differ by less */
};

static bool has_ended(uint32_t thread)
{
    return syscall(SYS_tgkill, getpid(), thread, 0) != 0 && errno == ESRCH;
}

/* What came in is not below us any more. A handler with a stack of its own says nothing of that. */
static bool jumped_out(const hami_door *door, uintptr_t frame)
{
    stack_t other;
    return frame + SIGNAL_FRAME >= door->frame && (sigaltstack(NULL, &other) != 0 || (other.ss_flags & SS_ONSTACK) == 0);
}

typedef enum { FREE, ENDED, JUMPED, INTERRUPTED } found;

static found wait_for(hami_door *door, uint32_t own, uintptr_t frame)
{
    for (;;) {
        uint32_t has = 0;
        if (atomic_compare_exchange_strong(&door->owner, &has, own))
            return FREE;
        if (has == own)
            return jumped_out(door, frame) ? JUMPED : INTERRUPTED;
        hami_futex_wait(&door->owner, has, LOOK_NS);
        if (has_ended(has) && atomic_compare_exchange_strong(&door->owner, &has, own))
            return ENDED;
    }
}

bool hami_door_enter(hami_door *door)
{
    const uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    const int kept = errno, stay = hami_stay();
    const found how = wait_for(door, (uint32_t)hami_thread(), frame);
    errno = kept;
    if (how == INTERRUPTED) {
        hami_stayed(stay);
        return false;
    }
    if (how != JUMPED) /* else it is as it was then */
        door->stay = stay;
    door->frame = frame;
    return true;
}

void hami_door_leave(hami_door *door)
{
    const int kept = errno, stay = door->stay;
    uint32_t own = (uint32_t)hami_thread();
    if (atomic_compare_exchange_strong(&door->owner, &own, 0)) {
        hami_futex_wake(&door->owner);
        hami_stayed(stay);
    }
    errno = kept;
}
