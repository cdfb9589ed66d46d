/* See ledger.h. */
#include "memory/ledger.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memory/claims.h"
#include "memory/loans.h"
#include "prim/prim.h"

enum { MAGIC = 0x48414d49 /* "HAMI" */ };
enum { REAP_EVERY_NS = 20 * 1000 * 1000 }; /* a program that keeps running into its limit must not read /proc each time */
enum { LOOK_NS = 50 * 1000 * 1000 };
#define MOST_BYTES ((int64_t)1 << 50) /* no card has that: nor does it stand in the ledger until the driver says so, where there is no limit */

static uint64_t boot_hash(void)
{
    char text[64];
    const ssize_t length = hami_read_file("/proc/sys/kernel/random/boot_id", text, sizeof text);
    uint64_t hash = 1469598103934665603u;
    for (ssize_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    return hash;
}

static int make_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error == 0)
        error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0)
        error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    if (error == 0)
        error = pthread_mutex_init(lock, &attributes);
    return -error;
}

/* Under the file lock: makes the ledger unless a valid one of this boot is there. */
static int prepare(void *memory)
{
    hami_ledger *ledger = memory;
    const uint64_t boot = boot_hash();
    if (atomic_load(&ledger->magic) == MAGIC && ledger->boot == boot)
        return ledger->version == HAMI_LEDGER_VERSION && ledger->bytes == sizeof *ledger ? 0 : -EPROTO;
    memset(memory, 0, sizeof *ledger);
    ledger->version = HAMI_LEDGER_VERSION;
    ledger->bytes = sizeof *ledger;
    ledger->boot = boot;
    const int error = make_lock(&ledger->lock);
    if (error == 0)
        atomic_store(&ledger->magic, MAGIC);
    return error;
}

static int64_t slot_held(const hami_slot *slot, int card)
{
    int64_t sum = slot->cards[card].loans;
    for (int kind = 0; kind < HAMI_KINDS; kind++)
        sum += slot->cards[card].held[kind];
    return sum;
}

/* After a holder died or has left half way: the slots are the truth, the totals may lag by the change in flight. */
static void recount(hami_ledger *ledger)
{
    hami_loans_recount(ledger);
    for (int card = 0; card < HAMI_MAX_CARDS; card++) {
        int64_t sum = 0;
        for (int slot = 0; slot < HAMI_SLOTS; slot++) {
            if (atomic_load_explicit(&ledger->slots[slot].pid, memory_order_relaxed) != 0)
                sum += slot_held(&ledger->slots[slot], card);
        }
        ledger->cards[card].held = sum;
    }
}

/*
 * Nobody gives up; but who sleeps looks again now and then. A waiter that is killed just after it was woken, together with whoever has taken the lock
 * before it, leaves it free with nobody told.
 */
static int lock_or_look(pthread_mutex_t *lock)
{
    int error = pthread_mutex_trylock(lock);
    while (error == EBUSY || error == ETIMEDOUT) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until); /* that of pthread_mutex_timedlock */
        until.tv_nsec += LOOK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        error = pthread_mutex_timedlock(lock, &until);
    }
    return error;
}

/*
 * EDEADLK: this thread has it. A handler has jumped out of what had it, or has interrupted that and calls us: all of the container would wait for it for ever.
 * What was interrupted goes on unguarded, and to leave does nothing then: a total that it was changing may be off by that until the next recount.
 */
void hami_ledger_lock(hami_ledger *ledger)
{
    const int error = lock_or_look(&ledger->lock);
    if (error == EOWNERDEAD || error == EDEADLK)
        recount(ledger);
    if (error == EOWNERDEAD)
        pthread_mutex_consistent(&ledger->lock);
}

void hami_ledger_unlock(hami_ledger *ledger)
{
    pthread_mutex_unlock(&ledger->lock);
}

static void empty_slot(hami_ledger *ledger, hami_slot *slot)
{
    /* pid first: a kill in between leaves a free slot whose bytes the recount does not see. */
    atomic_store(&slot->pid, 0);
    hami_loans_leave(ledger, (int)(slot - ledger->slots));
    for (int card = 0; card < HAMI_MAX_CARDS; card++) {
        ledger->cards[card].held -= slot_held(slot, card);
        hami_ledger_unclaim(ledger, (int)(slot - ledger->slots), card);
    }
    memset(slot->cards, 0, sizeof slot->cards);
}

static int reap_locked(hami_ledger *ledger)
{
    const uint64_t here = hami_pid_namespace();
    int dead = 0;
    for (int i = 0; i < HAMI_SLOTS; i++) {
        hami_slot *slot = &ledger->slots[i];
        const int32_t pid = atomic_load_explicit(&slot->pid, memory_order_relaxed);
        if (pid != 0 && slot->pid_namespace == here && !hami_process_alive(pid, slot->start)) {
            empty_slot(ledger, slot);
            dead++;
        }
    }
    return dead;
}

/* Not more often than REAP_EVERY_NS in the container; a process that has not looked for a second always may. */
static bool reap_is_due(hami_ledger *ledger)
{
    static int64_t own_ns;
    const int64_t now = hami_now_ns();
    if (now - ledger->reaped_ns < REAP_EVERY_NS && own_ns != 0 && now - own_ns < 1000000000)
        return false;
    ledger->reaped_ns = own_ns = now;
    return true;
}

static int take_slot(hami_ledger *ledger, pid_t pid, uint64_t start, uint64_t space)
{
    int empty = -1;
    for (int i = 0; i < HAMI_SLOTS; i++) {
        hami_slot *slot = &ledger->slots[i];
        const int32_t owner = atomic_load_explicit(&slot->pid, memory_order_relaxed);
        if (owner == pid && slot->pid_namespace == space)
            empty_slot(ledger, slot); /* this pid's earlier life: exec, or pid reuse */
        if (empty < 0 && atomic_load_explicit(&slot->pid, memory_order_relaxed) == 0)
            empty = i;
    }
    if (empty >= 0) {
        hami_slot *slot = &ledger->slots[empty];
        memset(slot->cards, 0, sizeof slot->cards);
        slot->pid_namespace = space;
        atomic_store(&slot->host_pid, 0);
        slot->start = start;
        atomic_store(&slot->pid, pid);
    }
    return empty;
}

int hami_ledger_join(hami_ledger *ledger, int *slot)
{
    const pid_t pid = getpid();
    const uint64_t start = hami_process_start(pid), space = hami_pid_namespace();
    hami_ledger_lock(ledger);
    *slot = take_slot(ledger, pid, start, space);
    if (*slot < 0 && reap_locked(ledger) > 0)
        *slot = take_slot(ledger, pid, start, space);
    hami_ledger_unlock(ledger);
    return *slot < 0 ? -ENOSPC : 0;
}

int hami_ledger_map(const char *path, hami_ledger **ledger)
{
    void *memory = NULL;
    const int error = hami_map_shared(path, sizeof(hami_ledger), &memory, prepare);
    if (error == 0)
        *ledger = memory;
    return error;
}

int hami_ledger_open(const char *path, hami_ledger **ledger, int *slot)
{
    const int error = hami_ledger_map(path, ledger);
    return error != 0 ? error : hami_ledger_join(*ledger, slot);
}

int hami_ledger_find(const hami_ledger *ledger, const char *uuid)
{
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        if (strncmp(ledger->cards[i].uuid, uuid, sizeof ledger->cards[i].uuid) == 0)
            return i;
    }
    return -1;
}

void hami_ledger_note_limit(hami_ledger *ledger, int card, int64_t limit, int core_percent)
{
    hami_ledger_lock(ledger);
    ledger->cards[card].limit = limit;
    ledger->cards[card].core_percent = core_percent;
    hami_ledger_unlock(ledger);
}

void hami_ledger_leave(hami_ledger *ledger, int slot)
{
    hami_ledger_lock(ledger);
    empty_slot(ledger, &ledger->slots[slot]);
    hami_ledger_unlock(ledger);
}

int hami_ledger_card_index(hami_ledger *ledger, const char *uuid, int64_t limit, int core_percent)
{
    int index = -1;
    hami_ledger_lock(ledger);
    for (int i = 0; i < HAMI_MAX_CARDS && index < 0; i++) {
        hami_ledger_card *card = &ledger->cards[i];
        if (card->uuid[0] == '\0')
            strncpy(card->uuid, uuid, sizeof card->uuid - 1);
        if (strncmp(card->uuid, uuid, sizeof card->uuid) == 0)
            index = i;
    }
    if (index >= 0) {
        ledger->cards[index].limit = limit;
        ledger->cards[index].core_percent = core_percent;
    }
    hami_ledger_unlock(ledger);
    return index;
}

static void add(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    hami_ledger_card *total = &ledger->cards[card];
    ledger->slots[slot].cards[card].held[kind] += bytes;
    total->held += bytes;
    if (total->held > total->peak)
        total->peak = total->held;
}

bool hami_ledger_reserve(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes, int64_t limit)
{
    if (bytes < 0)
        return false;
    hami_ledger_lock(ledger);
    /* limit - held cannot overflow: both are at least 0. */
    bool fits = bytes <= MOST_BYTES && bytes <= limit - ledger->cards[card].held;
    if (!fits && bytes <= MOST_BYTES && reap_is_due(ledger)) {
        hami_ledger_unlock(ledger);
        hami_ledger_reap(ledger);
        hami_ledger_lock(ledger);
        fits = bytes <= limit - ledger->cards[card].held;
    }
    if (fits)
        add(ledger, slot, card, kind, bytes);
    else
        atomic_fetch_add_explicit(&ledger->cards[card].refused, 1, memory_order_relaxed);
    hami_ledger_unlock(ledger);
    return fits;
}

void hami_ledger_release_locked(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    const int64_t held = ledger->slots[slot].cards[card].held[kind];
    add(ledger, slot, card, kind, -(bytes < held ? bytes : held));
}

void hami_ledger_release(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    hami_ledger_lock(ledger);
    hami_ledger_release_locked(ledger, slot, card, kind, bytes);
    hami_ledger_unlock(ledger);
}

void hami_ledger_add(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    hami_ledger_lock(ledger);
    const int64_t held = ledger->slots[slot].cards[card].held[kind];
    add(ledger, slot, card, kind, bytes < -held ? -held : bytes);
    hami_ledger_unlock(ledger);
}

void hami_ledger_settle(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    hami_ledger_lock(ledger);
    add(ledger, slot, card, kind, bytes - ledger->slots[slot].cards[card].held[kind]);
    hami_ledger_unlock(ledger);
}

void hami_ledger_explain(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes)
{
    hami_ledger_lock(ledger);
    const int64_t held = ledger->slots[slot].cards[card].held[HAMI_UNATTRIBUTED], moved = bytes < held ? bytes : held;
    add(ledger, slot, card, HAMI_UNATTRIBUTED, -moved);
    add(ledger, slot, card, kind, moved);
    hami_ledger_unlock(ledger);
}

int64_t hami_ledger_held(hami_ledger *ledger, int card)
{
    hami_ledger_lock(ledger);
    const int64_t held = ledger->cards[card].held;
    hami_ledger_unlock(ledger);
    return held;
}

int64_t hami_ledger_own(hami_ledger *ledger, int slot, int card)
{
    hami_ledger_lock(ledger);
    const hami_slot *own = &ledger->slots[slot];
    const int64_t held = slot_held(own, card) - own->cards[card].held[HAMI_UNATTRIBUTED];
    hami_ledger_unlock(ledger);
    return held;
}

void hami_ledger_kinds(hami_ledger *ledger, int slot, int card, int64_t held[HAMI_KINDS])
{
    hami_ledger_lock(ledger);
    memcpy(held, ledger->slots[slot].cards[card].held, sizeof ledger->slots[slot].cards[card].held);
    held[HAMI_BUFFER] += ledger->slots[slot].cards[card].loans;
    hami_ledger_unlock(ledger);
}

void hami_ledger_host_pid(hami_ledger *ledger, int slot, int pid)
{
    atomic_store(&ledger->slots[slot].host_pid, pid);
}

/* It reads a file of each process: a handler that jumped out of that would leave all of the container waiting. */
int hami_ledger_reap(hami_ledger *ledger)
{
    sigset_t before;
    hami_undisturbed_begin(&before);
    hami_ledger_lock(ledger);
    const int dead = reap_locked(ledger);
    hami_ledger_unlock(ledger);
    hami_undisturbed_end(&before);
    return dead;
}

int hami_ledger_slot_of(hami_ledger *ledger, int pid)
{
    const uint64_t here = hami_pid_namespace();
    int found = -1;
    hami_ledger_lock(ledger);
    for (int i = 0; i < HAMI_SLOTS && found < 0; i++) {
        if (pid != 0 && atomic_load(&ledger->slots[i].pid) == pid && ledger->slots[i].pid_namespace == here)
            found = i;
    }
    hami_ledger_unlock(ledger);
    return found;
}

bool hami_ledger_has(hami_ledger *ledger, int pid)
{
    for (int i = 0; i < HAMI_SLOTS; i++) {
        const int32_t own = atomic_load_explicit(&ledger->slots[i].pid, memory_order_relaxed);
        const int32_t host = atomic_load_explicit(&ledger->slots[i].host_pid, memory_order_relaxed);
        if (own != 0 && (own == pid || host == pid)) /* drivers differ in whose pids they tell in a pid namespace */
            return true;
    }
    return false;
}

int hami_ledger_processes(hami_ledger *ledger, int card)
{
    int processes = 0;
    hami_ledger_lock(ledger);
    for (int i = 0; i < HAMI_SLOTS; i++) {
        const hami_slot *slot = &ledger->slots[i];
        processes += atomic_load_explicit(&slot->pid, memory_order_relaxed) != 0 && slot_held(slot, card) > 0;
    }
    hami_ledger_unlock(ledger);
    return processes;
}
