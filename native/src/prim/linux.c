/* prim.h on Linux, for x86-64 and aarch64, glibc 2.17 and later. */
#define _GNU_SOURCE
#include "prim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 60 * 1000 };

int hami_stay(void)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

void hami_stayed(int before)
{
    pthread_setcancelstate(before, NULL);
}

void hami_undisturbed_begin(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t most;
    sigfillset(&most);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(&most, faults[i]);
    pthread_sigmask(SIG_BLOCK, &most, before);
}

void hami_undisturbed_end(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

int64_t hami_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * Past the C library, whose sleeps end a thread that is cancelled. hami_stay would prevent that, but for good where a handler jumps out of here.
 * True: to the end.
 */
static bool sleep_through(int flags, const struct timespec *time)
{
    const int kept = errno;
    const bool through = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, flags, time, NULL) == 0 || errno != EINTR;
    errno = kept;
    return through;
}

void hami_sleep_until_ns(int64_t deadline_ns)
{
    const int64_t wake = deadline_ns - SPIN_NS;
    if (wake > hami_now_ns()) {
        const struct timespec until = {.tv_sec = wake / 1000000000, .tv_nsec = wake % 1000000000};
        while (!sleep_through(TIMER_ABSTIME, &until)) {
        }
    }
    while (hami_now_ns() < deadline_ns)
        hami_relax();
}

void hami_sleep_coarse_ns(int64_t duration_ns)
{
    const struct timespec time = {.tv_sec = duration_ns / 1000000000, .tv_nsec = duration_ns % 1000000000};
    sleep_through(0, &time);
}

void hami_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    const struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
}

void hami_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void hami_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    const struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
}

void hami_futex_wake_shared(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void hami_process_name(char *name, size_t size)
{
    ssize_t length = hami_read_file("/proc/self/comm", name, size - 1);
    length = length < 0 ? 0 : length;
    for (ssize_t i = 0; i < length; i++) {
        if (name[i] == '\n')
            length = i;
        else if (name[i] < 0x20 || name[i] > 0x7e)
            name[i] = '?';
    }
    memset(name + length, 0, size - (size_t)length);
}

static ssize_t read_whole(const char *path, char *buffer, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t got = 0;
    ssize_t n = 0;
    char beyond;
    while (got < size && (n = read(fd, buffer + got, size - got)) > 0)
        got += (size_t)n;
    if (n >= 0 && got == size)
        n = read(fd, &beyond, 1) > 0 ? -EFBIG : 0;
    else if (n < 0)
        n = -errno;
    close(fd);
    return n < 0 ? n : (ssize_t)got;
}

ssize_t hami_read_file(const char *path, char *buffer, size_t size)
{
    const int before = hami_stay();
    const ssize_t got = read_whole(path, buffer, size);
    hami_stayed(before);
    return got;
}

/* All of it on the disk, where that can be had: else a full one would end the program at its first write. */
static int make_room(int fd, size_t bytes, const struct stat *there)
{
    enum { BLOCK = 512 };
    int error;
    if ((size_t)there->st_size >= bytes && (size_t)there->st_blocks * BLOCK >= bytes)
        return 0; /* some full disks would refuse what is there already */
    do
        error = fallocate(fd, 0, 0, (off_t)bytes) == 0 ? 0 : -errno;
    while (error == -EINTR);
    if (error != -EOPNOTSUPP && error != -ENOSYS)
        return error;
    return (size_t)there->st_size < bytes && ftruncate(fd, (off_t)bytes) != 0 ? -errno : 0;
}

static int grow_and_map(int fd, size_t bytes, void **memory, int (*prepare)(void *))
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EINVAL;
    int error = make_room(fd, bytes, &status);
    if (error != 0)
        return error;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    error = prepare(mapped);
    if (error != 0) {
        munmap(mapped, bytes);
        return error;
    }
    *memory = mapped;
    return 0;
}

static int map_shared(const char *path, size_t bytes, void **memory, int (*prepare)(void *memory))
{
    /* O_NOFOLLOW: in /tmp another user could have left a link there. */
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return -errno;
    int error = 0;
    while (flock(fd, LOCK_EX) != 0 && error == 0)
        error = errno == EINTR ? 0 : -errno;
    if (error == 0)
        error = grow_and_map(fd, bytes, memory, prepare);
    flock(fd, LOCK_UN); /* the mapping keeps the open file, and with it the lock, beyond the close */
    close(fd);
    return error;
}

int hami_map_shared(const char *path, size_t bytes, void **memory, int (*prepare)(void *memory))
{
    const int before = hami_stay();
    const int error = map_shared(path, bytes, memory, prepare);
    hami_stayed(before);
    return error;
}

/* What /proc/<pid>/stat says; all 0 when unreadable. */
typedef struct {
    char state;
    uint64_t threads, start;
} process_stat;

static process_stat read_stat(pid_t pid)
{
    enum { STATE = 3, THREADS = 20, START = 22 }; /* fields, as proc(5) numbers them */
    process_stat is = {0};
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const ssize_t length = hami_read_file(path, text, sizeof text - 1);
    if (length <= 0)
        return is;
    text[length] = '\0';
    const char *at = strrchr(text, ')'); /* the name may hold anything, ')' too */
    if (at == NULL || at[1] != ' ')
        return is;
    is.state = at[2];
    for (int field = STATE - 1; at != NULL && field < START; field++) {
        at = strchr(at + 1, ' ');
        if (field + 1 == THREADS && at != NULL)
            is.threads = strtoull(at + 1, NULL, 10);
    }
    is.start = at == NULL ? 0 : strtoull(at + 1, NULL, 10);
    return is;
}

uint64_t hami_process_start(pid_t pid)
{
    return read_stat(pid).start;
}

/*
 * One that was killed and not waited for is dead: its memory is back with the driver. But a process whose first thread has ended, and others not, has the same
 * letter, and all its memory.
 */
bool hami_process_alive(pid_t pid, uint64_t start)
{
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return false;
    const process_stat now = read_stat(pid);
    if ((now.state == 'Z' || now.state == 'X') && now.threads <= 1)
        return false;
    return now.start == 0 || start == 0 || now.start == start;
}

uint64_t hami_pid_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

/* False: nobody reads it. */
static bool write_whole(const char *text, size_t length)
{
    while (length > 0) {
        const ssize_t n = write(STDERR_FILENO, text, length);
        if (n <= 0 && errno != EINTR)
            return n == 0 || errno != EPIPE;
        text += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* The signal is the thread's own, so what was not waiting before is of this write. */
void hami_write_stderr(const char *text, size_t length)
{
    const struct timespec at_once = {0};
    const int kept = errno, before = hami_stay();
    sigset_t pipes, waiting, mask;
    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipes, &mask);
    sigpending(&waiting);
    if (!write_whole(text, length) && !sigismember(&waiting, SIGPIPE)) {
        while (sigtimedwait(&pipes, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    hami_stayed(before);
    errno = kept;
}
