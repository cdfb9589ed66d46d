/* Health events: a program waits on a set of them, the description file makes them happen. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rack.h"

/* How often a waiting set looks at the file; a stat each time is all it costs. */
#define POLL_MS 20U

struct registration {
    char uuid[NVML_UUID_SIZE];
    unsigned long long types;
    uint64_t seen; /* sequence of the last event delivered, or that was there before */
};

struct event_set {
    struct registration registrations[MAX_CARDS];
    unsigned int count;
};

/* What driver 580.159.04 answers for an H200; the bits above NVML_EVENT_MIG_CONFIG have no public name. */
static const unsigned long long supported = 0xFF9F;

NVML_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (types == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *types = supported;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    if (set == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *set = calloc(1, sizeof **set);
    return leave(*set ? NVML_SUCCESS : NVML_ERROR_MEMORY);
}

NVML_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    free(set);
    return leave(set ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT);
}

static uint64_t newest(const struct card *card)
{
    uint64_t sequence = 0;
    for (unsigned int i = 0; i < card->event_count; i++)
        if (card->events[i].sequence > sequence)
            sequence = card->events[i].sequence;
    return sequence;
}

static struct registration *registration_of(struct event_set *set, const char *uuid)
{
    for (unsigned int i = 0; i < set->count; i++)
        if (strcmp(set->registrations[i].uuid, uuid) == 0)
            return &set->registrations[i];
    return NULL;
}

/* Only what happens after the registration is delivered. Registering again adds types. */
NVML_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (set == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if ((types & ~supported) != 0)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    struct registration *mine = registration_of(set, card->uuid);
    if (mine == NULL && set->count == MAX_CARDS)
        return leave(NVML_ERROR_MEMORY);
    if (mine == NULL) {
        mine = &set->registrations[set->count++];
        memcpy(mine->uuid, card->uuid, sizeof mine->uuid);
        mine->types = 0;
        mine->seen = newest(card);
    }
    mine->types |= types;
    return leave(NVML_SUCCESS);
}

static const struct event *next_event(const struct card *card, const struct registration *mine)
{
    const struct event *next = NULL;
    for (unsigned int i = 0; i < card->event_count; i++) {
        const struct event *event = &card->events[i];
        bool wanted = event->sequence > mine->seen && (event->type & mine->types) != 0;
        if (wanted && (next == NULL || event->sequence < next->sequence))
            next = event;
    }
    return next;
}

static nvmlReturn_t take(struct event_set *set, nvmlEventData_t *to)
{
    for (unsigned int i = 0; i < set->count; i++) {
        struct registration *mine = &set->registrations[i];
        const struct card *card = card_by_uuid(mine->uuid);
        if (card == NULL || card->lost)
            return NVML_ERROR_GPU_IS_LOST;
        const struct event *event = next_event(card, mine);
        if (event == NULL)
            continue;
        mine->seen = event->sequence;
        *to = (nvmlEventData_t){.eventType = event->type,
                                .eventData = event->value,
                                .gpuInstanceId = event->gi,
                                .computeInstanceId = event->ci};
        return card_handle(card, &to->device);
    }
    return NVML_ERROR_TIMEOUT;
}

static unsigned long long now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000ULL + (unsigned long long)now.tv_nsec / 1000000ULL;
}

static nvmlReturn_t wait_for(const char *function, nvmlEventSet_t set, nvmlEventData_t *to, unsigned int timeout_ms)
{
    unsigned long long deadline = now_ms() + timeout_ms;
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (set == NULL || to == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    result = take(set, to);
    for (unsigned long long now = now_ms(); result == NVML_ERROR_TIMEOUT && now < deadline; now = now_ms()) {
        result = leave_for(deadline - now < POLL_MS ? (unsigned int)(deadline - now) : POLL_MS);
        if (result == NVML_SUCCESS)
            result = take(set, to);
    }
    return leave(result);
}

NVML_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int timeout_ms)
{
    return wait_for(__func__, set, event, timeout_ms);
}

NVML_API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_v1_t *event, unsigned int timeout_ms)
{
    nvmlEventData_t full;
    if (event == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = wait_for(__func__, set, &full, timeout_ms);
    if (result == NVML_SUCCESS)
        *event = (nvmlEventData_v1_t){.device = full.device, .eventType = full.eventType, .eventData = full.eventData};
    return result;
}
