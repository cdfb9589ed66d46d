/* prim.h, of packets and what comes along with them. */
#define _GNU_SOURCE
#include "prim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Newer than the oldest C library we build for. */
#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#define F_SEAL_SHRINK 0x0002
#endif

int hami_connect(const char *path, hami_socket *out)
{
    enum { HIGH = 512 }; /* out of the way of programs that count on low numbers */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    const size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    const int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 || fstat(fd, &status) != 0) {
        const int error = -errno;
        close(fd);
        return error;
    }
    *out = (hami_socket){.fd = fd, .inode = (uint64_t)status.st_ino};
    return 0;
}

bool hami_connected(const hami_socket *s)
{
    struct stat status;
    return s->fd >= 0 && fstat(s->fd, &status) == 0 && S_ISSOCK(status.st_mode) && (uint64_t)status.st_ino == s->inode;
}

int hami_send(const hami_socket *s, const void *packet, size_t size)
{
    if (!hami_connected(s))
        return -EBADF;
    return send(s->fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size ? 0 : -errno;
}

void hami_hang_up(hami_socket *s)
{
    if (hami_connected(s))
        close(s->fd);
    s->fd = -1;
}

ssize_t hami_receive(const hami_socket *s, void *packet, size_t size, int *fd, int64_t wait_ns)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = packet, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd wanted = {.fd = s->fd, .events = POLLIN};
    if (!hami_connected(s))
        return -EBADF;
    if (wait_ns > 0 && poll(&wanted, 1, (int)((wait_ns + 999999) / 1000000)) <= 0)
        return -EAGAIN;
    const ssize_t got = recvmsg(s->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(fd, CMSG_DATA(c), sizeof *fd);
    }
    return got;
}

int hami_map_sealed(int fd, size_t bytes, void **memory)
{
    struct stat status;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &status) != 0)
        return -errno;
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || (size_t)status.st_size != bytes)
        return -EPERM;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    *memory = mapped;
    return 0;
}
