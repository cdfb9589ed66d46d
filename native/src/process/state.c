/* See state.h. */
#include "process/state.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "limits/broker.h"
#include "price/bulk.h"
#include "price/burst.h"
#include "intercept/intercept.h"
#include "pay/lane.h"
#include "process/log.h"
#include "process/nvml.h"
#include "prim/door.h"
#include "prim/prim.h"

/* The agent's look, and its word: within two seconds, and some of it for a busy machine. */
#define UNSURE_NS ((int64_t)2500 * 1000 * 1000)

hami_state_t hami_state;
_Atomic bool hami_active;
_Atomic bool hami_shut;
_Atomic int hami_throttling;

static hami_door starting;
static bool policy_read, policy_usable, complained;
static bool inherited; /* by a child of a process in which limits are in force */

hami_card *hami_card_of(CUdevice device)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        if (hami_state.cards[i].device == device)
            return &hami_state.cards[i];
    }
    return NULL;
}

hami_card *hami_card_now(void)
{
    if (!atomic_load_explicit(&hami_active, memory_order_acquire))
        return NULL;
    if (hami_state.card_count == 1)
        return &hami_state.cards[0]; /* most containers: no need to ask the driver */
    CUdevice device;
    return USE(cuCtxGetDevice, &device) == CUDA_SUCCESS ? hami_card_of(device) : NULL;
}

/*
 * At the start nobody has looked for others: in a container NVML shows none of them, and the agent, who sees them, looks once a second. Who took himself for alone
 * meanwhile had what the card's time slices left him, whatever his limit: 46 percent of it for up to a second.
 */
static bool alone(hami_card *card)
{
    return atomic_load(&card->alone) && hami_now_ns() >= atomic_load(&card->unsure_until_ns);
}

bool hami_card_pays(hami_card *card)
{
    const int policy = atomic_load(&hami_state.core_policy);
    return atomic_load(&card->percent) < 100 && policy != HAMI_CORE_DISABLE && (policy == HAMI_CORE_FORCE || !alone(card));
}

bool hami_card_lone(hami_card *card)
{
    return atomic_load(&card->percent) < 100 && atomic_load(&hami_state.core_policy) == HAMI_CORE_DEFAULT && alone(card);
}

void hami_card_not_alone(hami_card *card)
{
    atomic_store(&card->unsure_until_ns, hami_now_ns() + UNSURE_NS);
    atomic_store(&card->alone, false);
}

void hami_throttle_update(void)
{
    int count = 0;
    bool mixed = false;
    for (int i = 0; i < hami_state.card_count; i++) {
        hami_card *card = &hami_state.cards[i];
        count += hami_card_pays(card) || atomic_load(&card->mixed);
        mixed |= atomic_load(&card->mixed);
    }
    hami_lanes_open(!mixed);
    atomic_store(&hami_throttling, count);
    hami_routes_update();
}

void hami_card_pages(hami_card *card, hami_turns_page *page, int member, int tenant, int weight)
{
    if (page != NULL && atomic_load(&card->unsure_until_ns) == 0)
        atomic_store(&card->unsure_until_ns, hami_now_ns() + UNSURE_NS);
    pthread_mutex_lock(&card->pacing);
    card->pacer.weight = weight;
    if (card->pacer.page != page || card->pacer.member != member)
        card->pacer = (hami_pacer){.page = page, .member = member, .tenant = tenant, .weight = weight};
    pthread_mutex_unlock(&card->pacing);
}

/* ---- start-up, once a process ---- */

/* A handler of the program's that ran in a child before this library knows that it is one would wait for locks of threads that are not there. */
static __thread sigset_t before_fork __attribute__((tls_model("initial-exec")));

static void at_fork(void)
{
    hami_undisturbed_begin(&before_fork);
}

static void in_parent(void)
{
    hami_undisturbed_end(&before_fork);
}

static void in_child(void)
{
    /* CUDA itself refuses to work in a child of an initialised parent, and to start there. Other threads of that may have had any of our locks. */
    if (atomic_exchange(&hami_active, false)) {
        atomic_store(&hami_shut, true);
        inherited = true;
    }
    atomic_store(&hami_throttling, 0);
    hami_routes_update();
    atomic_store(&hami_hot.measuring, false);
    hami_burst_forget();
    hami_bulk_forget(NULL);
    atomic_store(&hami_state.host_pid, 0);
    hami_broker_forget();
    starting = (hami_door){0};
    hami_undisturbed_end(&before_fork);
}

/* Once a process: what is wrong, why, what follows, and in a container of the agent's what helps. Returns false. */
static bool say(const char *what, const char *why, const char *follows, const char *helps)
{
    char line[500];
    const bool open = hami_state.policy.fail_open;
    if (!complained) {
        const int length = snprintf(line, sizeof line, "hami-vgpu: %s: %s; %s%s%s\n", what, why, open ? follows : "CUDA is refused",
                                    open || !hami_state.policy.from_file ? "" : ": ", open || !hami_state.policy.from_file ? "" : helps);
        hami_write_stderr(line, length < (int)sizeof line ? (size_t)length : sizeof line - 1);
    }
    complained = true;
    return false;
}

static bool say_once(const char *what, const char *why)
{
    return say(what, why, "running without limits", "delete the pod, its successor gets what it needs from the hami-agent of this node");
}

static bool read_policy(void)
{
    static char why[200];
    if (!policy_read) {
        policy_usable = hami_policy_load(&hami_state.policy, why, sizeof why);
        policy_read = true;
        hami_log_level = hami_state.policy.log_level;
        pthread_atfork(at_fork, in_parent, in_child);
    }
    return policy_usable || say_once("the limits of this container cannot be read", why);
}

/* What the policy says of this device; false: nothing. */
static bool limit_of(const hami_policy *policy, int index, const char *uuid, hami_card_limit *out)
{
    for (int i = 0; policy->from_file && i < policy->card_count; i++) {
        if (strcmp(policy->cards[i].uuid, uuid) == 0) {
            *out = policy->cards[i];
            return true;
        }
    }
    if (!policy->from_file)
        *out = policy->cards[index];
    return !policy->from_file;
}

static void write_uuid(const CUuuid *uuid, bool mig, char *text, size_t size)
{
    const unsigned char *b = uuid->bytes;
    snprintf(text, size, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", mig ? "MIG" : "GPU", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static bool add_card(int index)
{
    hami_card *card = &hami_state.cards[index];
    CUuuid uuid, parent;
    memset(card, 0, sizeof *card);
    if (USE(cuDeviceGet, &card->device, index) != CUDA_SUCCESS || USE(cuDeviceGetUuid, &parent, card->device) != CUDA_SUCCESS)
        return say_once("a card cannot be read", "cuDeviceGet failed");
    if (USE(cuDeviceGetUuid_v2, &uuid, card->device) != CUDA_SUCCESS)
        uuid = parent;
    write_uuid(&uuid, memcmp(&uuid, &parent, sizeof uuid) != 0, card->uuid, sizeof card->uuid);
    hami_card_limit limit = {.limit_bytes = 0, .core_percent = 1}; /* a card not ours: nothing of it */
    if (!limit_of(&hami_state.policy, index, card->uuid, &limit))
        hami_log(HAMI_LOG_ERROR, "%s is not in the policy: nothing may be allocated on it", card->uuid);
    hami_broker_limit(card->uuid, &limit);
    pthread_mutex_init(&card->pacing, NULL);
    card->pacer.weight = limit.core_percent;
    atomic_store(&card->told_others, -1);
    atomic_store(&card->told_bytes, -1);
    atomic_store(&card->limit, limit.limit_bytes);
    atomic_store(&card->percent, limit.core_percent);
    atomic_store(&card->alone, true);
    atomic_store(&card->reconcile_due, true);
    card->ledger_index = hami_ledger_card_index(hami_state.ledger, card->uuid, limit.limit_bytes, limit.core_percent);
    hami_log(HAMI_LOG_DECISION, "card %d %s: memory %lld bytes, compute %d %%", index, card->uuid,
             (long long)limit.limit_bytes, limit.core_percent);
    return card->ledger_index >= 0 || say_once("the ledger is full", "more than 16 cards");
}

static bool add_cards(void)
{
    int count = 0;
    if (USE(cuDeviceGetCount, &count) != CUDA_SUCCESS)
        return say_once("the cards cannot be counted", "cuDeviceGetCount failed");
    if (count > HAMI_MAX_CARDS)
        return say_once("too many cards", "this container shows more than 16");
    for (int i = 0; i < count; i++) {
        if (!add_card(i))
            return false;
    }
    hami_state.card_count = count;
    return true;
}

static bool watch(void)
{
    const int error = hami_watch_start();
    return error == 0 || say_once("the threads that watch over the limits cannot be started", strerror(-error));
}

static bool join_ledger(void)
{
    const int error = hami_state.ledger == NULL
                          ? hami_ledger_open(hami_state.policy.ledger, &hami_state.ledger, &hami_state.slot)
                          : hami_ledger_join(hami_state.ledger, &hami_state.slot);
    return error == 0 || say_once(hami_state.policy.ledger, strerror(-error));
}

/* False: there must be a broker, and there is none. */
static bool join_broker(void)
{
    char why[160];
    atomic_store(&hami_state.core_policy, (int)hami_state.policy.core_policy);
    if (hami_state.policy.broker[0] == '\0' || hami_broker_join(&hami_state.policy, why, sizeof why))
        return true;
    say("no registration with the agent of this node", why, "running under the limits of the policy file",
        "see that hami-agent runs on this node, then start the program again");
    return hami_state.policy.fail_open;
}

static CUresult start(unsigned int flags)
{
    const bool usable = read_policy();
    if (usable && hami_state.policy.off)
        return BEHIND(cuInit, flags);
    if (!usable || !join_ledger())
        return hami_state.policy.fail_open ? BEHIND(cuInit, flags) : CUDA_ERROR_SYSTEM_NOT_READY;
    if (!join_broker()) {
        hami_ledger_leave(hami_state.ledger, hami_state.slot);
        return CUDA_ERROR_SYSTEM_NOT_READY;
    }
    const int64_t begun = hami_now_ns();
    atomic_store(&hami_shut, !hami_state.policy.fail_open);
    const CUresult result = BEHIND(cuInit, flags);
    const int64_t driver_ns = hami_now_ns() - begun;
    if (result != CUDA_SUCCESS) {
        atomic_store(&hami_shut, false); /* the driver's own answers say it all */
        hami_ledger_leave(hami_state.ledger, hami_state.slot);
        return result;
    }
    if (!add_cards() || !watch()) {
        hami_ledger_leave(hami_state.ledger, hami_state.slot);
        return hami_state.policy.fail_open ? CUDA_SUCCESS : CUDA_ERROR_SYSTEM_NOT_READY;
    }
    atomic_store_explicit(&hami_active, true, memory_order_release);
    atomic_store(&hami_shut, false);
    hami_broker_apply();
    hami_throttle_update();
    hami_log(HAMI_LOG_DECISION, "started: the driver took %lld us, what followed %lld", (long long)driver_ns / 1000,
             (long long)(hami_now_ns() - begun - driver_ns) / 1000);
    return CUDA_SUCCESS;
}

CUresult cuInit(unsigned int flags)
{
    if (!hami_uses_load())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (inherited)
        return BEHIND(cuInit, flags);
    if (!hami_door_enter(&starting)) /* a handler asks, in the middle of it */
        return atomic_load(&hami_active) ? BEHIND(cuInit, flags) : CUDA_ERROR_SYSTEM_NOT_READY;
    const CUresult result = atomic_load(&hami_active) ? BEHIND(cuInit, flags) : start(flags);
    hami_door_leave(&starting);
    return result;
}

/* ---- lookups by name ---- */

CUresult cuGetProcAddress(const char *symbol, void **out, int version, cuuint64_t flags)
{
    hami_driver_load();
    const CUresult result = BEHIND(cuGetProcAddress, symbol, out, version, flags);
    if (result == CUDA_SUCCESS && out != NULL && *out != NULL) {
        *out = hami_translate(*out, symbol);
        return *out == NULL ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
    }
    return result;
}

enum { SYMBOL_NOT_FOUND = 1 };

static CUresult translated(CUresult result, const char *symbol, void **out, int *status)
{
    if (result != CUDA_SUCCESS || out == NULL || *out == NULL)
        return result;
    *out = hami_translate(*out, symbol);
    if (*out != NULL)
        return result;
    if (status != NULL)
        *status = SYMBOL_NOT_FOUND;
    return CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags, int *status)
{
    hami_driver_load();
    return translated(BEHIND(cuGetProcAddress_v2, symbol, out, version, flags, status), symbol, out, status);
}

CUresult cuGetProcAddress_v2_ptsz(const char *symbol, void **out, int version, cuuint64_t flags, int *status)
{
    hami_driver_load();
    return translated(BEHIND(cuGetProcAddress_v2_ptsz, symbol, out, version, flags, status), symbol, out, status);
}
