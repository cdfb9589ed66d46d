/* See broker.h. Called by one thread at a time: cuInit under its lock, then the watch thread. */
#include "limits/broker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hami/turns.h"
#include "process/log.h"
#include "prim/prim.h"
#include "process/state.h"
#include "limits/wire.h"

#define MS ((int64_t)1000000)

enum { AT_ONCE = 64, NO_DESCRIPTOR = -1 };

static const char *path;              /* of the socket; NULL: this container has no broker */
static hami_socket connection = {.fd = -1};
static bool welcome;                  /* it knows us */
static int limits_expected, limits_heard;
static char last_word[120];           /* why it refused us */
static hami_wire_limit told[HAMI_MAX_CARDS]; /* kind 0: nothing said */
static hami_turns_page *pages[HAMI_MAX_CARDS];
static hami_wire_usage sent[HAMI_MAX_CARDS];
static int64_t known_before[HAMI_MAX_CARDS]; /* bytes of this process that were explained at the last round */
static int64_t again_ns;              /* when to connect again */
static int failures;

static void hang_up(void)
{
    hami_hang_up(&connection);
    welcome = false;
    memset(sent, 0, sizeof sent);
}

/* Jittered: a restarted agent must not meet all its clients at once. */
static void try_later(void)
{
    const int64_t base = 500 * MS << (failures < 4 ? failures : 4);
    failures++;
    again_ns = hami_now_ns() + base + (hami_now_ns() / 1000 * 2654435761 + getpid() * 40503) % base;
}

static bool reach(void)
{
    hami_wire_hello hello = {.header = {HAMI_WIRE_VERSION, HAMI_HELLO, sizeof hello}, .pid = (uint32_t)getpid()};
    hello.pid_namespace = hami_pid_namespace();
    hello.start_ticks = hami_process_start(getpid());
    hami_process_name(hello.program, sizeof hello.program);
    const int error = hami_connect(path, &connection);
    if (error != 0) {
        snprintf(last_word, sizeof last_word, "%s: %s", path, strerror(-error));
        return false;
    }
    limits_expected = limits_heard = 0;
    if (hami_send(&connection, &hello, sizeof hello) != 0) {
        hang_up();
        return false;
    }
    return true;
}

/* ---- what it says ---- */

static hami_turns_page *map_page(int fd)
{
    void *memory = NULL;
    if (fd == NO_DESCRIPTOR || hami_map_sealed(fd, sizeof(hami_turns_page), &memory) != 0)
        return NULL;
    const hami_turns_page *page = memory;
    return page->magic == HAMI_TURNS_MAGIC && page->version == HAMI_TURNS_VERSION ? memory : NULL;
}

static hami_card *card_with(const char *uuid)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        if (strcmp(hami_state.cards[i].uuid, uuid) == 0)
            return &hami_state.cards[i];
    }
    return NULL;
}

static void apply(int index)
{
    const hami_wire_limit *l = &told[index];
    hami_card *card = card_with(l->uuid);
    if (card == NULL)
        return;
    atomic_store(&card->limit, l->limit);
    atomic_store(&card->percent, (int)l->core_percent);
    atomic_store(&card->mixed, (l->flags & HAMI_LIMIT_MIXED) != 0);
    atomic_store(&card->low, l->priority != 0);
    atomic_store(&hami_state.core_policy, (int)l->core_policy);
    hami_card_pages(card, l->member < 0 ? NULL : pages[index], l->member, (int)l->tenant, (int)l->core_percent);
    hami_ledger_note_limit(hami_state.ledger, card->ledger_index, l->limit, (int)l->core_percent);
    hami_log(HAMI_LOG_DECISION, "the broker says: card %s: memory %lld bytes, compute %u %%", card->uuid, (long long)l->limit,
             l->core_percent);
}

static void hear_limit(const hami_wire_limit *l, int fd)
{
    hami_turns_page *page = map_page(fd);
    told[l->card] = *l;
    if (page != NULL)
        pages[l->card] = page; /* one of an earlier agent stays mapped: a thread may be looking at it, and it is small */
    limits_heard++;
    if (atomic_load(&hami_active)) {
        apply((int)l->card);
        hami_throttle_update();
    }
}

/* NVML in a container with a pid namespace of its own does not find us: then what the broker saw counts. */
static void hear_seen(const hami_wire_seen *s)
{
    hami_card *card = told[s->card].header.kind == 0 ? NULL : card_with(told[s->card].uuid);
    if (card == NULL || !atomic_load(&hami_active))
        return;
    atomic_store(&card->told_others, (int)(s->others > INT32_MAX ? INT32_MAX : s->others));
    atomic_store(&card->told_bytes, s->own_bytes);
}

static bool hear(const hami_packet *packet, int fd)
{
    switch (packet->header.kind) {
    case HAMI_WELCOME:
        welcome = true;
        failures = 0;
        limits_expected = (int)packet->welcome.cards;
        atomic_store(&hami_state.host_pid, (int)packet->welcome.host_pid);
        if (hami_state.ledger != NULL)
            hami_ledger_host_pid(hami_state.ledger, hami_state.slot, (int)packet->welcome.host_pid);
        return true;
    case HAMI_LIMIT:
        hear_limit(&packet->limit, fd);
        return true;
    case HAMI_SEEN:
        hear_seen(&packet->seen);
        return true;
    default:
        snprintf(last_word, sizeof last_word, "%s", packet->refused.text);
        return false;
    }
}

/* Reads what is there, waiting up to `wait_ns` for the first packet. False: it hung up, or talks nonsense. */
static bool listen_to_it(int64_t wait_ns)
{
    for (int i = 0; i < AT_ONCE; i++) {
        hami_packet packet;
        int fd = NO_DESCRIPTOR;
        const ssize_t size = hami_receive(&connection, &packet, sizeof packet, &fd, i == 0 ? wait_ns : 0);
        if (size == -EAGAIN)
            return true;
        bool good = size > 0 && hami_wire_good(&packet, (size_t)size);
        if (size > 0 && !good)
            snprintf(last_word, sizeof last_word, "the broker speaks another language");
        good = good && hear(&packet, fd);
        if (fd != NO_DESCRIPTOR)
            close(fd);
        if (!good)
            return false;
    }
    return true;
}

/* ---- joining ---- */

static bool registered(void)
{
    return welcome && limits_heard >= limits_expected;
}

bool hami_broker_join(const hami_policy *policy, char *why, size_t why_size)
{
    path = policy->broker;
    const int64_t until = hami_now_ns() + (policy->fail_open ? 500 : 10000) * MS;
    for (int64_t pause = 5 * MS;; pause = pause < 200 * MS ? pause * 2 : pause) {
        if (reach()) {
            while (!registered() && hami_now_ns() < until && listen_to_it(until - hami_now_ns())) {
            }
            if (registered())
                return true;
            hang_up();
        }
        if (hami_now_ns() + pause > until)
            break;
        hami_sleep_coarse_ns(pause);
    }
    snprintf(why, why_size, "%s", last_word[0] != '\0' ? last_word : "the agent of this node does not answer");
    return false;
}

bool hami_broker_limit(const char *uuid, hami_card_limit *limit)
{
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        if (told[i].header.kind != 0 && strcmp(told[i].uuid, uuid) == 0) {
            limit->limit_bytes = told[i].limit;
            limit->core_percent = (int)told[i].core_percent;
            return true;
        }
    }
    return false;
}

void hami_broker_apply(void)
{
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        if (told[i].header.kind != 0)
            apply(i);
    }
    if (hami_state.host_pid != 0)
        hami_ledger_host_pid(hami_state.ledger, hami_state.slot, hami_state.host_pid);
}

void hami_broker_forget(void)
{
    hang_up();
    memset(told, 0, sizeof told);
    memset(pages, 0, sizeof pages); /* places on them are the parent's */
    failures = 0;
}

/* ---- once a second ---- */

/* A context that was measured, not estimated, is in what NVML shows beyond ours: told as a context, and not as modules. */
static void name_contexts(hami_card *card, int64_t held[HAMI_KINDS])
{
    const int64_t missing = atomic_load(&hami_state.ledger->cards[card->ledger_index].context_bytes) - held[HAMI_CONTEXT];
    const int64_t part = missing < held[HAMI_UNATTRIBUTED] ? missing : held[HAMI_UNATTRIBUTED];
    if (part > 0) {
        held[HAMI_CONTEXT] += part;
        held[HAMI_UNATTRIBUTED] -= part;
    }
}

static void tell_usage(int index)
{
    hami_card *card = told[index].header.kind == 0 ? NULL : card_with(told[index].uuid);
    if (card == NULL)
        return;
    hami_wire_usage now = {.header = {HAMI_WIRE_VERSION, HAMI_USAGE, sizeof now}, .card = (uint32_t)index};
    hami_ledger_kinds(hami_state.ledger, hami_state.slot, card->ledger_index, now.held);
    name_contexts(card, now.held);
    now.busy_ns = atomic_load(&card->busy_ns);
    now.launched_ns = atomic_load(&card->launched_ns);
    now.waited_ns = atomic_load(&card->waited_ns);
    now.refused = (uint64_t)atomic_load(&hami_state.ledger->cards[card->ledger_index].refused);
    if (memcmp(&now, &sent[index], sizeof now) != 0 && hami_send(&connection, &now, sizeof now) == 0)
        sent[index] = now;
}

/* What NVML shows of us beyond what we know of; two rounds old at most, so only what both explain is taken off. */
static void settle(int index)
{
    hami_card *card = told[index].header.kind == 0 ? NULL : card_with(told[index].uuid);
    if (card == NULL)
        return;
    const int64_t known = hami_ledger_own(hami_state.ledger, hami_state.slot, card->ledger_index);
    const int64_t most = known > known_before[index] ? known : known_before[index];
    const int64_t shown = atomic_load(&card->told_bytes);
    known_before[index] = known;
    if (shown >= 0 && !atomic_load(&card->nvml_shows_us))
        hami_ledger_settle(hami_state.ledger, hami_state.slot, card->ledger_index, HAMI_UNATTRIBUTED,
                           shown > most ? shown - most : 0);
}

void hami_broker_round(void)
{
    if (path == NULL || path[0] == '\0')
        return;
    if (hami_connected(&connection) && !listen_to_it(0)) {
        hami_log(HAMI_LOG_WARN, "the broker has gone: %s; the last limits stand", last_word[0] ? last_word : "end of file");
        hang_up();
        try_later();
    }
    if (!hami_connected(&connection) && hami_now_ns() >= again_ns) {
        hang_up();
        if (!reach())
            try_later();
    }
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        if (welcome)
            tell_usage(i);
        settle(i);
    }
}
