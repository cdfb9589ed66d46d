/*
 * A stand-in for libvgpu.so: it limits nothing.
 *
 * It only proves that it was preloaded into a container: as it is loaded it
 * appends one line, "<pid> <program>", to a file. Tests and demonstrations of
 * everything around the library use it; no installation should.
 *
 * The file is $HAMI_STANDIN_LOG, else "standin-loaded.log" in the container's
 * read-write folder that the agent mounts beside the read-only policy.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEFAULT_LOG "/usr/local/vgpu/standin-loaded.log"

/* What tells it from the real library, for whoever looks with nm or dlsym. */
__attribute__((visibility("default"))) const char hami_standin[] = "HAMi stand-in: limits nothing";

/* Runs inside every program of the container, so it must leave no trace: no output, errno kept. */
__attribute__((constructor)) static void say_loaded(void)
{
    int kept = errno;
    const char *named = secure_getenv("HAMI_STANDIN_LOG");
    int file = open(named ? named : DEFAULT_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file >= 0) {
        char line[256];
        int length = snprintf(line, sizeof line, "%ld %.200s\n", (long)getpid(), program_invocation_short_name);
        ssize_t written = write(file, line, (size_t)length); /* one write, so that lines stay whole */
        (void)written;
        (void)close(file);
    }
    errno = kept;
}
