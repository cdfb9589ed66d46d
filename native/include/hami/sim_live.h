/*
 * What the simulated CUDA driver and the simulated NVML share: which process holds how much of which card now.
 *
 * One file beside the card description, `<description>.live`, mapped by both. A process writes only its own entry, and holds
 * a lock on the byte of the file with the entry's number: the kernel drops it when the process dies, and tells a reader who
 * holds it in the pids of the reader's own namespace, as a real driver does.
 */
#ifndef HAMI_SIM_LIVE_H
#define HAMI_SIM_LIVE_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

enum { SIM_LIVE_PROCESSES = 512, SIM_LIVE_CARDS = 20, SIM_LIVE_MAGIC = 0x53494d34 };

typedef struct {
    _Atomic int32_t pid; /* in its own namespace; 0: free */
    int32_t pad;
    _Atomic uint64_t space;                  /* its pid namespace */
    _Atomic int64_t bytes[SIM_LIVE_CARDS];   /* held on each card of the description */
    _Atomic int64_t busy_ns[SIM_LIVE_CARDS]; /* time it was given on each card, put down as it begins */
    _Atomic int64_t turn_ns[SIM_LIVE_CARDS]; /* end of its last turn on each card, CLOCK_MONOTONIC */
} sim_live_process;

typedef struct {
    _Atomic uint32_t magic;
    uint32_t pad;
    _Atomic int64_t free_at_ns[SIM_LIVE_CARDS]; /* when each card is through with what was handed to it, CLOCK_MONOTONIC */
    sim_live_process processes[SIM_LIVE_PROCESSES];
} sim_live;

enum { SIM_LIVE_NOBODY = -1, SIM_LIVE_ELSEWHERE = 0 };

static inline struct flock sim_live_lock(int slot)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = 0, .l_start = slot, .l_len = 1};
}

static inline uint64_t sim_live_space(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

/* Whether the process of an entry lives that holds no lock: it is this one, or has closed all that it had open. */
static inline bool sim_live_unlocked(const sim_live_process *entry)
{
    const int32_t pid = atomic_load(&entry->pid);
    return pid != 0 && atomic_load(&entry->space) == sim_live_space() && (kill(pid, 0) == 0 || errno != ESRCH);
}

/* The entry's process by its pid here, ELSEWHERE: it has none in this namespace, NOBODY: it is free, or its process gone. */
static inline int sim_live_pid(int fd, const sim_live *live, int slot)
{
    const sim_live_process *entry = &live->processes[slot];
    struct flock lock = sim_live_lock(slot);
    if (atomic_load(&entry->pid) == 0)
        return SIM_LIVE_NOBODY;
    if (fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        return lock.l_pid > 0 ? lock.l_pid : SIM_LIVE_ELSEWHERE;
    return sim_live_unlocked(entry) ? atomic_load(&entry->pid) : SIM_LIVE_NOBODY;
}

#endif
