/*
 * Memory of another process: by an IPC handle, or by a descriptor. See fake.h.
 *
 * A handle says whose memory it is, how much and where. The one who maps it is given the memory when its maker is gone, as
 * a real driver keeps memory that anybody has mapped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"

typedef struct {
    int pid, card;
    int64_t bytes;
    CUdeviceptr address; /* in its maker */
} token;

enum { LOOK_EVERY_US = 1000, LOANS = 256 };

static struct {
    token of;
    uint64_t key; /* here: address or handle; 0: free */
    int opened;   /* so often */
    bool ours;    /* its maker is gone */
} loans[LOANS];

/* Descriptors of this process's own memory, which holds it as long as one is open here. */
static struct {
    struct alloc *of; /* NULL: free */
    ino_t file;
} exports[LOANS];

/* And of linear memory. */
static struct {
    uint64_t key; /* 0: free */
    ino_t file;
    int card;
    int64_t bytes;
    bool freed;
} kept[LOANS];

static bool open_here(ino_t file)
{
    struct stat there;
    for (int fd = 0; fd < 256; fd++) {
        if (fstat(fd, &there) == 0 && there.st_ino == file && S_ISREG(there.st_mode))
            return true;
    }
    return false;
}

static void *look(void *unused)
{
    for (;; usleep(LOOK_EVERY_US)) {
        pthread_mutex_lock(&fake_lock);
        for (int i = 0; i < LOANS; i++) {
            if (kept[i].key != 0 && !open_here(kept[i].file)) {
                if (kept[i].freed)
                    fake_give_linear(kept[i].card, kept[i].bytes);
                kept[i].key = 0;
            }
        }
        for (int i = 0; i < LOANS; i++) {
            if (exports[i].of != NULL && !open_here(exports[i].file)) {
                fake_unhold(exports[i].of);
                exports[i].of = NULL;
            }
        }
        for (int i = 0; i < LOANS; i++) {
            if (loans[i].key != 0 && !loans[i].ours && kill(loans[i].of.pid, 0) != 0 && errno == ESRCH)
                loans[i].ours = fake_take(loans[i].of.card, loans[i].of.bytes);
        }
        pthread_mutex_unlock(&fake_lock);
    }
    return unused;
}

/* Under the lock, as those below. */
static void start_looking(void)
{
    static pthread_t looking;
    if (looking == 0 && pthread_create(&looking, NULL, look, NULL) == 0)
        pthread_detach(looking);
}

static void exported(struct alloc *entry, int fd)
{
    struct stat there;
    start_looking();
    for (int i = 0; i < LOANS && fstat(fd, &there) == 0; i++) {
        if (exports[i].of == NULL) {
            entry->holders++;
            exports[i].file = there.st_ino;
            exports[i].of = entry;
            return;
        }
    }
}

static bool borrow(token of, uint64_t key)
{
    start_looking();
    for (int i = 0; i < LOANS; i++) {
        if (loans[i].key == 0) {
            loans[i].of = of;
            loans[i].opened = 1;
            loans[i].ours = false;
            loans[i].key = key;
            return true;
        }
    }
    return false;
}

bool fake_return(uint64_t key)
{
    for (int i = 0; i < LOANS; i++) {
        if (loans[i].key != key)
            continue;
        if (--loans[i].opened > 0)
            return true;
        if (loans[i].ours)
            fake_take(loans[i].of.card, -loans[i].of.bytes);
        loans[i].key = 0;
        return true;
    }
    return false;
}

bool fake_kept(const struct alloc *entry)
{
    for (int i = 0; i < LOANS; i++) {
        if (kept[i].key == entry->key && open_here(kept[i].file))
            return kept[i].freed = true;
    }
    return false;
}

API CUresult cuMemGetHandleForAddressRange(void *out, CUdeviceptr address, size_t bytes, int type, unsigned long long flags)
{
    struct stat there;
    (void)bytes, (void)type, (void)flags;
    pthread_mutex_lock(&fake_lock);
    const struct alloc *entry = fake_live_alloc(address, A_LINEAR);
    const int fd = entry == NULL ? -1 : memfd_create("simulated dma-buf", MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &there) != 0)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    start_looking();
    for (int i = 0; i < LOANS; i++) {
        if (kept[i].key == 0) {
            kept[i].key = address;
            kept[i].file = there.st_ino;
            kept[i].card = entry->card;
            kept[i].bytes = entry->bytes;
            kept[i].freed = false;
            break;
        }
    }
    memcpy(out, &fd, sizeof fd);
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    pthread_mutex_lock(&fake_lock);
    const struct alloc *entry = fake_live_alloc(address, A_LINEAR);
    int64_t size = entry == NULL ? 0 : entry->bytes;
    for (int i = 0; i < LOANS; i++)
        size = loans[i].key == address ? loans[i].of.bytes : size;
    *base = address;
    *bytes = (size_t)size;
    return fake_leave(size == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
}

API CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr address)
{
    pthread_mutex_lock(&fake_lock);
    const struct alloc *entry = fake_live_alloc(address, A_LINEAR);
    if (entry == NULL)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    const token of = {(int)getpid(), entry->card, entry->bytes, address};
    memset(out, 0, sizeof *out);
    memcpy(out, &of, sizeof of);
    return fake_leave(CUDA_SUCCESS);
}

/* It has one address, however often it is opened. */
static bool open_again(const token *of, CUdeviceptr *out)
{
    for (int i = 0; i < LOANS; i++) {
        if (loans[i].key != 0 && memcmp(&loans[i].of, of, sizeof *of) == 0) {
            loans[i].opened++;
            *out = loans[i].key;
            return true;
        }
    }
    return false;
}

API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)
{
    token of;
    (void)flags;
    memcpy(&of, &handle, sizeof of);
    if (of.pid == (int)getpid() || (kill(of.pid, 0) != 0 && errno == ESRCH))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    if (open_again(&of, out))
        return fake_leave(CUDA_SUCCESS);
    *out = fake_address(of.bytes);
    return fake_leave(borrow(of, *out) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

API CUresult cuIpcCloseMemHandle(CUdeviceptr address)
{
    pthread_mutex_lock(&fake_lock);
    return fake_leave(fake_return(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

API CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, int type, unsigned long long flags)
{
    (void)flags;
    pthread_mutex_lock(&fake_lock);
    struct alloc *entry = fake_live_alloc(handle, A_VMM);
    if (entry == NULL || type != 1)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    const token of = {(int)getpid(), entry->card, entry->bytes, handle};
    const int fd = memfd_create("simulated memory", MFD_CLOEXEC);
    if (fd < 0 || write(fd, &of, sizeof of) != (ssize_t)sizeof of)
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    memcpy(out, &fd, sizeof fd);
    exported(entry, fd);
    return fake_leave(CUDA_SUCCESS);
}

/* A handle of its own that holds the memory, as if it came from elsewhere. */
static CUmemGenericAllocationHandle import_own(const token *of)
{
    struct alloc *entry = fake_live_alloc(of->address, A_VMM);
    const CUmemGenericAllocationHandle made = fake_address(0);
    entry->holders++;
    fake_add((struct alloc){.key = made, .card = entry->card, .kind = A_VMM, .holders = 1, .backing = entry});
    return made;
}

/* A handle whose memory is another's: nothing is taken until that one is gone. */
API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *shareable, int type)
{
    token of;
    if (type != 1 || pread((int)(intptr_t)shareable, &of, sizeof of, 0) != (ssize_t)sizeof of)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    if (of.pid == (int)getpid()) {
        *out = import_own(&of);
        return fake_leave(CUDA_SUCCESS);
    }
    *out = fake_address(0);
    fake_add((struct alloc){.key = *out, .card = of.card, .kind = A_VMM, .holders = 1});
    return fake_leave(borrow(of, *out) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *out, CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&fake_lock);
    const struct alloc *entry = fake_live_alloc(handle, A_VMM);
    if (entry == NULL)
        return fake_leave(CUDA_ERROR_INVALID_VALUE);
    *out = (CUmemAllocationProp){.type = 1, .handle_types = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, entry->card}};
    return fake_leave(CUDA_SUCCESS);
}
