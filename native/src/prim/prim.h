/*
 * Everything the library asks of the operating system, in one place.
 *
 * Conventions: times are nanoseconds of CLOCK_MONOTONIC; a function that can fail returns 0 or a negated errno;
 * result pointers are never NULL. Nothing here allocates, prints or changes process-wide state, and no thread is cancelled in here: a driver's
 * launch does not end one either, and our locks would stay taken.
 */
#ifndef HAMI_PRIM_H
#define HAMI_PRIM_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* About 20 ns: the kernel's vDSO, no system call. */
int64_t hami_now_ns(void);

/* Returns at `deadline_ns` or a little later. Sleeps, then spins over the last 60 us, which is what a wake-up costs. */
void hami_sleep_until_ns(int64_t deadline_ns);

/* For loops that wait for another thread without sleeping. */
static inline void hami_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps about that long; the kernel's timer slack is welcome. */
void hami_sleep_coarse_ns(int64_t duration_ns);

/* Between the two this thread is not cancelled: for what has a lock while the C library or a driver may wait. A few ns. */
int hami_stay(void);
void hami_stayed(int before);

/*
 * Between the two no handler of the program's runs in this thread, but those of faults: for what takes long with a lock had. Such a handler may end the
 * process, or jump, or call us again; so the lock is to be given back before. 0.3 us for both.
 */
void hami_undisturbed_begin(sigset_t *before);
void hami_undisturbed_end(const sigset_t *before);

/* Who this thread is to the kernel. */
pid_t hami_thread(void);

/* This thread's real-time priority, 1 to 99; 0: it has none. 0.1 us. */
int hami_realtime(void);

/* Has a thread of this process run at that real-time priority. False: it may not, or there is no such one. */
bool hami_run_realtime(pid_t thread, int priority);

/* Sleeps while `*word == expected`, until woken or until `timeout_ns` has passed (negative: no limit). */
void hami_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void hami_futex_wake(_Atomic uint32_t *word);

/* The same on memory that several processes share. */
void hami_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void hami_futex_wake_shared(_Atomic uint32_t *word);

/* Reads at most `size` bytes of a file. Returns the count, or a negated errno; -EFBIG when there is more. */
ssize_t hami_read_file(const char *path, char *buffer, size_t size);

/*
 * Maps `bytes` of the file read-write and shared, making the file (mode 0666 less umask) and growing it when needed.
 * `prepare(memory)` runs under an exclusive file lock, so that one process sets the file up and the rest find it ready;
 * what it returns (0 or a negated errno) is returned. No descriptor stays open.
 */
int hami_map_shared(const char *path, size_t bytes, void **memory, int (*prepare)(void *memory));

/*
 * A packet socket to a server on this machine. The number alone is not trusted: a program may close all its descriptors and have
 * the number given to a file of its own, so each use looks whether it is still our socket.
 */
typedef struct {
    int fd; /* -1: none */
    uint64_t inode;
} hami_socket;

int hami_connect(const char *path, hami_socket *out);                     /* at once or not at all */
bool hami_connected(const hami_socket *s);                                /* still ours; says nothing of the other end */
int hami_send(const hami_socket *s, const void *packet, size_t size);     /* never waits, never raises SIGPIPE */
void hami_hang_up(hami_socket *s);

/*
 * Size of the packet (what is longer is cut), 0 at end-of-file, or a negated errno: -EAGAIN after `wait_ns` without one.
 * `*fd`: a descriptor that came along, for the caller to close; left alone when there was none.
 */
ssize_t hami_receive(const hami_socket *s, void *packet, size_t size, int *fd, int64_t wait_ns);

/* Maps a memory file of that size, shared and writable; -EPERM unless it is sealed against being cut. */
int hami_map_sealed(int fd, size_t bytes, void **memory);

/* The program's name, at most size - 1 letters, only printable ASCII. */
void hami_process_name(char *name, size_t size);

/* Who a process is: its start time in clock ticks since boot, 0 when it cannot be read. */
uint64_t hami_process_start(pid_t pid);

/* False only when that very process is certainly gone: pid reuse is seen by the start time. */
bool hami_process_alive(pid_t pid, uint64_t start);

/* Number of this process's pid namespace, 0 when unknown. Pids of another namespace say nothing here. */
uint64_t hami_pid_namespace(void);

/* One write(2) to stderr, no buffering, errno kept; no SIGPIPE where nobody reads it any more. */
void hami_write_stderr(const char *text, size_t length);

#endif
