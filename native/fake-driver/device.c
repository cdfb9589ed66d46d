/* Cards, who is on them, and what can be asked of them. See fake.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

#define MIB ((int64_t)1 << 20)

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
fake_card fake_cards[SIM_LIVE_CARDS];
int fake_card_count;
sim_live *fake_live;

static bool started, inherited; /* inherited: by a child, for which it never starts again */
static int live_fd = -1;
static sim_live_process *self;

int64_t fake_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int fake_stub(const char *name)
{
    if (getenv("FAKE_CUDA_TRACE") != NULL)
        fprintf(stderr, "simulated CUDA: %s is not simulated\n", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

bool fake_ready(void)
{
    return started;
}

sim_live_process *fake_self(void)
{
    return self;
}

CUresult fake_leave(CUresult result)
{
    pthread_mutex_unlock(&fake_lock);
    return result;
}

/* ---- start ---- */

static void read_cards(const char *path)
{
    char line[512];
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && fake_card_count < SIM_LIVE_CARDS) {
        fake_card *card = fake_card_count == 0 ? NULL : &fake_cards[fake_card_count - 1];
        long long total = 0, kept = 0;
        if (strcmp(line, "card\n") == 0 || strncmp(line, "card ", 5) == 0)
            fake_cards[fake_card_count].at = fake_card_count, fake_card_count++;
        else if (card != NULL && strncmp(line, "uuid ", 5) == 0)
            sscanf(line + 5, "%95s", card->uuid);
        else if (card != NULL && sscanf(line, "memory %lld %lld", &total, &kept) == 2)
            card->total = total - kept;
    }
    if (file != NULL)
        fclose(file);
    if (fake_card_count == 0) {
        const char *count = getenv("FAKE_CUDA_CARDS");
        fake_card_count = count == NULL ? 1 : atoi(count);
        for (int i = 0; i < fake_card_count; i++) {
            snprintf(fake_cards[i].uuid, sizeof fake_cards[i].uuid, "GPU-00000000-0000-0000-0000-%012d", i + 1);
            fake_cards[i].total = 81559 * MIB;
            fake_cards[i].at = i;
        }
    }
}

static bool map_live(const char *cards)
{
    char path[512];
    if (cards != NULL)
        snprintf(path, sizeof path, "%s.live", cards);
    else
        snprintf(path, sizeof path, "%s", getenv("FAKE_CUDA_LIVE") ? getenv("FAKE_CUDA_LIVE") : "");
    const int fd = path[0] == '\0' ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0 && ftruncate(fd, sizeof(sim_live)) != 0) {
        close(fd);
        return false;
    }
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(NULL, sizeof(sim_live), PROT_READ | PROT_WRITE, flags, fd, 0);
    live_fd = fd; /* stays open: the lock of our entry goes with it */
    fake_live = memory == MAP_FAILED ? NULL : memory;
    if (fake_live != NULL)
        atomic_store(&fake_live->magic, SIM_LIVE_MAGIC);
    return fake_live != NULL;
}

/* Whoever has the lock of a free entry, or of a dead process's, has the entry. */
static bool take_entry(int slot)
{
    sim_live_process *entry = &fake_live->processes[slot];
    struct flock lock = sim_live_lock(slot);
    if (live_fd >= 0 && fcntl(live_fd, F_SETLK, &lock) != 0)
        return false;
    if (atomic_load(&entry->pid) == (int32_t)getpid() || !sim_live_unlocked(entry))
        return true;
    lock.l_type = F_UNLCK;
    (void)fcntl(live_fd, F_SETLK, &lock);
    return false;
}

static bool enter_self(void)
{
    int slot = 0;
    while (slot < SIM_LIVE_PROCESSES && !take_entry(slot))
        slot++;
    if (slot == SIM_LIVE_PROCESSES)
        return false;
    sim_live_process *entry = &fake_live->processes[slot];
    atomic_store(&entry->pid, 0);
    atomic_store(&entry->space, sim_live_space());
    for (int card = 0; card < SIM_LIVE_CARDS; card++) {
        atomic_store(&entry->bytes[card], 0);
        atomic_store(&entry->busy_ns[card], 0);
        atomic_store(&entry->turn_ns[card], 0);
    }
    atomic_store(&entry->pid, (int32_t)getpid());
    self = entry;
    return true;
}

static void leave(void)
{
    if (self != NULL && getenv("FAKE_CUDA_BUSY") != NULL)
        fprintf(stderr, "simulated CUDA: busy for %lld ns\n", (long long)atomic_load(&self->busy_ns[0]));
    if (self != NULL && atomic_load(&self->pid) == (int32_t)getpid())
        atomic_store(&self->pid, 0);
}

/* What glibc's pthread_atfork calls. musl, whose programs are to be able to load this too, has none by that name. */
extern int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *library) __attribute__((weak));

/* As on a real driver: who is forked need not wait for threads that it has not, and is refused. */
static void in_child(void)
{
    pthread_mutex_init(&fake_lock, NULL);
    inherited = started;
    started = false;
}

API CUresult cuInit(unsigned int flags)
{
    CUresult result = inherited ? CUDA_ERROR_NOT_INITIALIZED : flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    if (!started && result == CUDA_SUCCESS) {
        const char *cards = getenv("HAMI_SIM_CARDS");
        read_cards(cards);
        fake_choose_cards();
        started = fake_card_count > 0 && map_live(cards) && enter_self();
        result = started ? CUDA_SUCCESS : fake_card_count == 0 ? 100 : 999;
        atexit(leave);
        if (__register_atfork != NULL)
            __register_atfork(NULL, NULL, in_child, NULL);
    }
    pthread_mutex_unlock(&fake_lock);
    return result;
}

/* By all that live. */
static int64_t held(int card)
{
    int64_t sum = 0;
    for (int i = 0; i < SIM_LIVE_PROCESSES; i++) {
        const int64_t has = atomic_load_explicit(&fake_live->processes[i].bytes[fake_cards[card].at], memory_order_relaxed);
        if (has != 0 && sim_live_pid(live_fd, fake_live, i) != SIM_LIVE_NOBODY)
            sum += has;
    }
    return sum;
}

bool fake_take(int card, int64_t bytes)
{
    if (bytes > 0 && bytes > fake_cards[card].total - held(card))
        return false;
    atomic_fetch_add(&self->bytes[fake_cards[card].at], bytes);
    return true;
}

/* ---- questions ---- */


API CUresult cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *count)
{
    NEED_START;
    if (fake_fails("cuDeviceGetCount"))
        return 999;
    *count = fake_card_count;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice *out, int index)
{
    NEED_CARD(index);
    *out = index;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    NEED_CARD(device);
    snprintf(name, (size_t)length, "Simulated GPU");
    return CUDA_SUCCESS;
}

/* Behind `GPU-` or `MIG-`. */
static CUresult read_uuid(CUuuid *out, const char *uuid)
{
    const char *at = uuid + 4;
    unsigned int byte;
    for (int i = 0; i < 16; i++, at += 2) {
        at += *at == '-';
        if (sscanf(at, "%2x", &byte) != 1)
            return CUDA_ERROR_INVALID_VALUE;
        out->bytes[i] = (unsigned char)byte;
    }
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetUuid(CUuuid *out, CUdevice device)
{
    NEED_CARD(device);
    const fake_card *card = &fake_cards[device];
    return read_uuid(out, card->card_uuid[0] != '\0' ? card->card_uuid : card->uuid);
}

API CUresult cuDeviceGetUuid_v2(CUuuid *out, CUdevice device)
{
    NEED_CARD(device);
    return read_uuid(out, fake_cards[device].uuid);
}

API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    NEED_CARD(device);
    *value = attribute == 16 ? 132 : attribute == 39 ? 2048 : attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    NEED_CARD(device);
    *bytes = (size_t)fake_cards[device].total;
    return CUDA_SUCCESS;
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    const fake_context *context = fake_current();
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *total_bytes = (size_t)fake_cards[context->device].total;
    *free_bytes = *total_bytes - (size_t)held(context->device);
    return CUDA_SUCCESS;
}
