/* Keeps the rack current with its file, and lets one caller at a time look at it. */
#define _GNU_SOURCE
#include "rack.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_HANDLES (MAX_CARDS * 16U)

struct rack the_rack;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int users;        /* nvmlInit calls not yet undone */
static char path[4096];           /* taken from the environment at the first nvmlInit */
static struct timespec read_at;   /* mtime, inode and size of what was read last: a rename always shows */
static ino_t read_inode;
static off_t read_size;
static bool have_rack;
static struct handle handles[MAX_HANDLES];
static struct rack incoming;

const char *rack_path(void)
{
    return path;
}

static void complain(const char *problem)
{
    (void)fprintf(stderr, "simulated NVML: %s: %s\n", path[0] ? path : "HAMI_SIM_CARDS is not set", problem);
}

static bool same_file(const struct stat *now)
{
    return now->st_ino == read_inode && now->st_size == read_size && now->st_mtim.tv_sec == read_at.tv_sec &&
           now->st_mtim.tv_nsec == read_at.tv_nsec;
}

/* A file that cannot be read or parsed leaves the rack as it was: a writer may be halfway. */
static void refresh(void)
{
    struct stat now;
    if (path[0] == '\0' || stat(path, &now) != 0 || (have_rack && same_file(&now)))
        return;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    /* What is remembered must be of the file that is read, not of one renamed over it meanwhile. */
    char problem[256] = "";
    if (fstat(fileno(file), &now) == 0 && rack_parse(file, &incoming, problem, sizeof problem)) {
        the_rack = incoming;
        have_rack = true;
    } else {
        complain(problem[0] ? problem : strerror(errno));
    }
    read_at = now.st_mtim;
    read_inode = now.st_ino;
    read_size = now.st_size;
    (void)fclose(file);
}

static bool names(const struct fault *fault, const char *function)
{
    size_t length = strlen(fault->function);
    if (strcmp(fault->function, "*") == 0 || strcmp(fault->function, function) == 0)
        return true;
    return strncmp(fault->function, function, length) == 0 && strncmp(function + length, "_v", 2) == 0;
}

static const struct fault *find_fault(const struct faults *faults, const char *function)
{
    for (unsigned int i = 0; i < faults->count; i++)
        if (names(&faults->list[i], function))
            return &faults->list[i];
    return NULL;
}

static void sleep_ms(unsigned int milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000U, .tv_nsec = (long)(milliseconds % 1000U) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* Gives the fault's answer. The delay passes unlocked: one sick card does not hold up its neighbours. */
static nvmlReturn_t suffer(const struct fault *fault)
{
    struct fault copy = *fault; /* the rack may change while we sleep */
    if (copy.delay_ms > 0) {
        (void)pthread_mutex_unlock(&lock);
        sleep_ms(copy.delay_ms);
        (void)pthread_mutex_lock(&lock);
        if (users == 0)
            return NVML_ERROR_UNINITIALIZED;
        refresh();
    }
    return copy.result;
}

static nvmlReturn_t system_faults(const char *function)
{
    const struct fault *fault = find_fault(&the_rack.faults, function);
    return fault ? suffer(fault) : NVML_SUCCESS;
}

nvmlReturn_t leave(nvmlReturn_t result)
{
    (void)pthread_mutex_unlock(&lock);
    return result;
}

nvmlReturn_t leave_for(unsigned int milliseconds)
{
    (void)pthread_mutex_unlock(&lock);
    sleep_ms(milliseconds);
    (void)pthread_mutex_lock(&lock);
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    refresh();
    return NVML_SUCCESS;
}

nvmlReturn_t enter(const char *function)
{
    (void)pthread_mutex_lock(&lock);
    if (users == 0)
        return leave(NVML_ERROR_UNINITIALIZED);
    refresh();
    nvmlReturn_t result = system_faults(function);
    return result == NVML_SUCCESS ? result : leave(result);
}

static bool ours(const struct handle *device)
{
    uintptr_t at = (uintptr_t)device;
    uintptr_t first = (uintptr_t)handles;
    return at >= first && at < first + sizeof handles && (at - first) % sizeof(struct handle) == 0 && device->used;
}

nvmlReturn_t enter_device(const char *function, nvmlDevice_t device, struct card **card, struct handle **handle)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (!ours(device))
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *card = card_by_uuid(device->card);
    if (*card == NULL || (*card)->lost)
        return leave(NVML_ERROR_GPU_IS_LOST);
    const struct fault *fault = find_fault(&(*card)->faults, function);
    result = fault ? suffer(fault) : NVML_SUCCESS;
    if (result != NVML_SUCCESS)
        return leave(result);
    *card = card_by_uuid(device->card); /* a delay may have changed the rack */
    *handle = device;
    return *card ? NVML_SUCCESS : leave(NVML_ERROR_GPU_IS_LOST);
}

nvmlReturn_t enter_card(const char *function, nvmlDevice_t device, struct card **card)
{
    struct handle *handle = NULL;
    nvmlReturn_t result = enter_device(function, device, card, &handle);
    if (result == NVML_SUCCESS && handle->mig)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    return result;
}

struct card *card_by_uuid(const char *uuid)
{
    for (unsigned int i = 0; i < the_rack.card_count; i++)
        if (strcmp(the_rack.cards[i].uuid, uuid) == 0)
            return &the_rack.cards[i];
    return NULL;
}

/* The same thing always has the same handle, as with the real library. */
static nvmlReturn_t handle_for(const struct handle *wanted, nvmlDevice_t *device)
{
    for (unsigned int i = 0; i < MAX_HANDLES; i++) {
        if (!handles[i].used)
            handles[i] = *wanted;
        if (strcmp(handles[i].uuid, wanted->uuid) == 0) {
            handles[i].gi = wanted->gi;
            handles[i].ci = wanted->ci;
            *device = &handles[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_MEMORY;
}

nvmlReturn_t card_handle(const struct card *card, nvmlDevice_t *device)
{
    if (card->lost)
        return NVML_ERROR_GPU_IS_LOST;
    struct handle wanted = {.used = true, .gi = NVML_NO_VALUE, .ci = NVML_NO_VALUE};
    memcpy(wanted.uuid, card->uuid, sizeof wanted.uuid);
    memcpy(wanted.card, card->uuid, sizeof wanted.card);
    return handle_for(&wanted, device);
}

nvmlReturn_t mig_handle(const struct card *card, const char *uuid, unsigned int gi, unsigned int ci,
                        nvmlDevice_t *device)
{
    struct handle wanted = {.used = true, .mig = true, .gi = gi, .ci = ci};
    (void)snprintf(wanted.uuid, sizeof wanted.uuid, "%s", uuid);
    memcpy(wanted.card, card->uuid, sizeof wanted.card);
    return handle_for(&wanted, device);
}

nvmlReturn_t copy_text(char *to, unsigned int size, const char *text)
{
    size_t needed = strlen(text) + 1;
    if (size < needed)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(to, text, needed);
    return NVML_SUCCESS;
}

static nvmlReturn_t first_user(const char *function)
{
    const char *named = getenv("HAMI_SIM_CARDS");
    have_rack = false;
    memset(&the_rack, 0, sizeof the_rack);
    (void)snprintf(path, sizeof path, "%s", named ? named : "");
    refresh();
    if (have_rack)
        return system_faults(function);
    if (path[0] == '\0')
        complain("no description of simulated cards");
    return NVML_ERROR_DRIVER_NOT_LOADED;
}

/* All ways of starting have one name for faults, since a caller cannot choose its version. */
static nvmlReturn_t begin(void)
{
    (void)pthread_mutex_lock(&lock);
    users++; /* before a fault's delay, which must not look like a shutdown */
    nvmlReturn_t result = users == 1 ? first_user("nvmlInit_v2") : NVML_SUCCESS;
    if (result != NVML_SUCCESS)
        users--;
    return leave(result);
}

NVML_API nvmlReturn_t nvmlInit_v2(void)
{
    return begin();
}

NVML_API nvmlReturn_t nvmlInit(void)
{
    return begin();
}

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags; /* "no GPUs is no error" and "do not attach" both hold here anyway */
    return begin();
}

NVML_API nvmlReturn_t nvmlShutdown(void)
{
    (void)pthread_mutex_lock(&lock);
    if (users == 0)
        return leave(NVML_ERROR_UNINITIALIZED);
    users--;
    return leave(NVML_SUCCESS);
}
