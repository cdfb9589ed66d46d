/* Processes that use the simulated CUDA driver on these cards now; it writes them, this reads them (hami/sim_live.h). */
#define _GNU_SOURCE
#include "live.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hami/sim_live.h"
#include "rack.h"

static int live_fd = -1;

/* Mapped once it is there: programs may start after us. */
static const sim_live *live(void)
{
    static const sim_live *mapped;
    char path[4200];
    struct stat status;
    if (mapped != NULL || rack_path()[0] == '\0')
        return mapped;
    (void)snprintf(path, sizeof path, "%s.live", rack_path());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) == 0 && (size_t)status.st_size >= sizeof(sim_live)) {
        void *memory = mmap(NULL, sizeof(sim_live), PROT_READ, MAP_SHARED, fd, 0);
        mapped = memory == MAP_FAILED ? NULL : memory;
    }
    if (mapped == NULL)
        (void)close(fd);
    else
        live_fd = fd; /* stays open: closing it would drop the lock that the driver in this process has */
    return mapped;
}

/* Work is put down when it begins, with all of its time: what is still to come is taken off. */
static int64_t ran_ns(const sim_live_process *entry, unsigned int card)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t to_come = atomic_load(&entry->turn_ns[card]) - ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    return atomic_load(&entry->busy_ns[card]) - (to_come > 0 ? to_come : 0);
}

unsigned int live_processes(unsigned int card, struct live_process *out, unsigned int size)
{
    const sim_live *file = live();
    unsigned int found = 0;
    for (unsigned int i = 0; file != NULL && card < SIM_LIVE_CARDS && i < SIM_LIVE_PROCESSES && found < size; i++) {
        const sim_live_process *entry = &file->processes[i];
        const int64_t bytes = atomic_load(&entry->bytes[card]);
        const int pid = bytes <= 0 ? SIM_LIVE_NOBODY : sim_live_pid(live_fd, file, (int)i);
        if (pid == SIM_LIVE_NOBODY)
            continue;
        out[found++] = (struct live_process){.pid = (unsigned int)pid, .slot = i, .bytes = (uint64_t)bytes, .ran_ns = ran_ns(entry, card)};
    }
    return found;
}

uint64_t live_bytes(unsigned int card)
{
    struct live_process list[SIM_LIVE_PROCESSES];
    unsigned int count = live_processes(card, list, SIM_LIVE_PROCESSES);
    uint64_t sum = 0;
    for (unsigned int i = 0; i < count; i++)
        sum += list[i].bytes;
    return sum;
}
