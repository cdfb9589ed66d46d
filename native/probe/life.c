/* What may happen to a process: its limit changes, it forks, it closes what is not its own. See probe.h. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe.h"

void watch(double seconds)
{
    size_t left = 0, total = 0, before = 0;
    start(false);
    for (const int64_t until = now_ns() + (int64_t)(seconds * 1e9); now_ns() < until; usleep(5000)) {
        MUST(cuMemGetInfo, &left, &total);
        if (total != before) {
            printf("{\"total_mib\": %zu}\n", total / MIB);
            fflush(stdout);
        }
        before = total;
    }
}

void closes(int seconds)
{
    enum { FIRST = 3, BEYOND = 600 };
    start(false);
    for (int fd = FIRST; fd < BEYOND; fd++)
        close(fd);
    FILE *own = tmpfile();
    for (int fd = FIRST; fd < BEYOND; fd++)
        dup2(fileno(own), fd);
    sleep((unsigned int)seconds / 2);
    struct stat status;
    const long long written = fstat(FIRST, &status) == 0 ? (long long)status.st_size : -1;
    for (int fd = FIRST; fd < BEYOND; fd++)
        close(fd);
    sleep((unsigned int)seconds - (unsigned int)seconds / 2);
    printf("{\"foreign_bytes\": %lld}\n", written);
}

void forks(int seconds)
{
    start(false);
    const pid_t child = fork();
    if (child == 0) {
        for (;;)
            pause();
    }
    printf("{\"child\": %d}\n", (int)child);
    fflush(stdout);
    sleep((unsigned int)seconds);
}
