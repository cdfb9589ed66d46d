/*
 * Memory that one process makes and another one maps: by an IPC handle (`ipc`), or by the descriptor of a handle (`fd`).
 * Each step takes so many seconds, or where those are below 0 until a line on stdin says that it is over: who tests the order of steps has no
 * need to guess how long a busy machine takes for one. See probe.h.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

enum { BY_DESCRIPTOR = 1, ACCESS_READ_WRITE = 3 };

static struct {
    CUresult (*get)(CUipcMemHandle *, CUdeviceptr);
    CUresult (*open)(CUdeviceptr *, CUipcMemHandle, unsigned int);
    CUresult (*close)(CUdeviceptr);
    CUresult (*out)(void *, CUmemGenericAllocationHandle, int, unsigned long long);
    CUresult (*in)(CUmemGenericAllocationHandle *, void *, int);
    CUresult (*allow)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
} ipc;

static void find(const char *name, void *field)
{
    void *address = dlsym(driver, name);
    if (address == NULL)
        fail(name, 0);
    memcpy(field, &address, sizeof address);
}

static void ipc_start(void)
{
    find("cuIpcGetMemHandle", &ipc.get);
    find("cuIpcOpenMemHandle_v2", &ipc.open);
    find("cuIpcCloseMemHandle", &ipc.close);
    find("cuMemExportToShareableHandle", &ipc.out);
    find("cuMemImportFromShareableHandle", &ipc.in);
    find("cuMemSetAccess", &ipc.allow);
    start(false);
}

/* True: a line asks what is held; false: another one, or the end of them, says that the step is over. */
static bool asked(void)
{
    char line[16];
    return fgets(line, sizeof line, stdin) != NULL && strcmp(line, "held\n") == 0;
}

static void wait_for(double seconds)
{
    if (seconds < 0)
        asked();
    else
        usleep((useconds_t)(seconds * 1e6));
}

static void must(const char *what, CUresult result)
{
    if (result != CUDA_SUCCESS)
        fail(what, result);
}

static CUdeviceptr mapped(CUmemGenericAllocationHandle handle, size_t bytes)
{
    const CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, device}, ACCESS_READ_WRITE};
    CUdeviceptr p;
    MUST(cuMemAddressReserve, &p, bytes, 0, 0, 0);
    MUST(cuMemMap, p, bytes, 0, handle, 0);
    must("cuMemSetAccess", ipc.allow(p, bytes, &access, 1));
    return p;
}

void lend(const char *kind, size_t mib, const char *after, double seconds)
{
    ipc_start();
    CUdeviceptr p = 0;
    CUmemGenericAllocationHandle handle = 0, other = 0;
    CUipcMemHandle token;
    int fd = -1, other_fd = -1;
    const bool by_handle = strcmp(kind, "ipc") == 0;
    if (by_handle) {
        MUST(cuMemAlloc, &p, mib * MIB);
        must("cuIpcGetMemHandle", ipc.get(&token, p));
        printf("{\"mib\": %zu, \"token\": \"", mib);
        for (size_t i = 0; i < sizeof token; i++)
            printf("%02x", (unsigned char)token.reserved[i]);
        printf("\"}\n");
    } else {
        const CUmemAllocationProp prop = {.type = 1, .handle_types = BY_DESCRIPTOR, .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
        MUST(cuMemCreate, &handle, mib * MIB, &prop, 0);
        if (strcmp(after, "other") == 0) {
            MUST(cuMemCreate, &other, mib * MIB, &prop, 0);
            must("cuMemExportToShareableHandle", ipc.out(&other_fd, other, BY_DESCRIPTOR, 0));
        }
        must("cuMemExportToShareableHandle", ipc.out(&fd, handle, BY_DESCRIPTOR, 0));
        printf("{\"mib\": %zu, \"token\": \"%d:%d:%zu\"}\n", mib, (int)getpid(), fd, mib);
    }
    fflush(stdout);
    wait_for(seconds);
    if (strcmp(after, "keep") != 0) {
        close(other != 0 ? other_fd : fd); /* as long as it is open, it holds the memory */
        must("free", by_handle ? cu.cuMemFree(p) : cu.cuMemRelease(other != 0 ? other : handle));
        printf("{\"freed\": true}\n");
        fflush(stdout);
        wait_for(seconds);
    }
}

static void tell_what_is_held(void)
{
    size_t left, total;
    MUST(cuMemGetInfo, &left, &total);
    printf("{\"used_mib\": %zu, \"nvml_mib\": %.1f}\n", (total - left) / MIB, (double)nvml_bytes() / (double)MIB);
    fflush(stdout);
}

static void tell_held(double seconds)
{
    while (seconds < 0 && asked())
        tell_what_is_held();
    for (const int64_t until = now_ns() + (int64_t)(seconds * 1e9); now_ns() < until; usleep(50000))
        tell_what_is_held();
}

void borrow(const char *token, double seconds, double then)
{
    ipc_start();
    int pid, fd;
    size_t mib = 0;
    CUdeviceptr p = 0;
    CUmemGenericAllocationHandle handle = 0;
    if (sscanf(token, "%d:%d:%zu", &pid, &fd, &mib) == 3) {
        const int process = (int)syscall(SYS_pidfd_open, pid, 0), own = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
        if (own < 0)
            fail("pidfd_getfd", 0);
        must("cuMemImportFromShareableHandle", ipc.in(&handle, (void *)(intptr_t)own, BY_DESCRIPTOR));
        p = mapped(handle, mib * MIB);
        close(own);
        close(process);
    } else {
        CUipcMemHandle by;
        unsigned int byte;
        for (size_t i = 0; i < sizeof by && sscanf(token + 2 * i, "%2x", &byte) == 1; i++)
            by.reserved[i] = (char)byte;
        must("cuIpcOpenMemHandle", ipc.open(&p, by, 1));
    }
    printf("{\"borrowed\": true}\n");
    fflush(stdout);
    tell_held(seconds);
    if (handle != 0) {
        MUST(cuMemRelease, handle);
        MUST(cuMemUnmap, p, mib * MIB);
    } else {
        must("cuIpcCloseMemHandle", ipc.close(p));
    }
    printf("{\"returned\": true}\n");
    fflush(stdout);
    tell_held(then);
}
