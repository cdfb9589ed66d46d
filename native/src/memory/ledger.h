/*
 * The ledger: who of the container holds how much of which card.
 *
 * One file a container, mapped by all its processes. Invariant, at every instant and over all processes:
 *
 *     card.held == sum of slot.held over all slots      and      held after a reserve <= limit
 *
 * A slot belongs to one process and never moves. Every change happens under one robust mutex; the kernel hands the
 * mutex on when its owner is killed, and the next holder recounts from the slots, so a kill at any instruction loses
 * nothing. Limits come in as arguments: what a tenant could write into the file never raises them.
 */
#ifndef HAMI_LEDGER_H
#define HAMI_LEDGER_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "limits/policy.h"

enum { HAMI_SLOTS = 1024, HAMI_LOANS = 1024, HAMI_LEDGER_VERSION = 5 };

/* What memory is for. */
typedef enum {
    HAMI_BUFFER,       /* cuMemAlloc and its kin, managed, external */
    HAMI_POOL,         /* stream-ordered pools, by their reserved bytes */
    HAMI_VMM,          /* cuMemCreate */
    HAMI_ARRAY,        /* arrays and mipmaps */
    HAMI_GRAPH,        /* memory nodes of graphs, by the card's graph memory */
    HAMI_CONTEXT,      /* contexts and modules as far as foreseen, device heap */
    HAMI_UNATTRIBUTED, /* what NVML shows beyond all of the above */
    HAMI_KINDS
} hami_kind;

typedef struct {
    int64_t held[HAMI_KINDS]; /* bytes */
    int64_t loans;            /* bytes, of memory whose maker is gone: what the rows of loans say, of which it is the sum */
} hami_holding;

/* Memory of one process that another has mapped; or is offered to. See loans.h. */
typedef struct {
    uint64_t key;     /* the same for all who have the same memory */
    int32_t owner;    /* slot + 1; 0: gone */
    int32_t borrower; /* slot + 1; 0: an offer; with `owner` 0 the row is free */
    int32_t card;
    int32_t pays;
    int64_t bytes;
} hami_loan;

typedef struct {
    _Atomic int32_t pid;   /* in pid_namespace; 0: free */
    _Atomic int32_t host_pid; /* as the broker told; 0: not known */
    uint64_t pid_namespace;
    uint64_t start; /* clock ticks since boot, tells a reused pid */
    hami_holding cards[HAMI_MAX_CARDS];
} hami_slot;

typedef struct {
    char uuid[96];              /* empty: free */
    int64_t limit;              /* bytes, for people and metrics only */
    int64_t core_percent;       /* for people and metrics only */
    int64_t held;               /* bytes, all kinds, all slots */
    int64_t peak;               /* bytes, highest `held` seen */
    _Atomic int64_t context_bytes; /* size of a context on this card, as a process measured it, or at most; 0: nobody has yet, -1: NVML does not show it */
    _Atomic int64_t refused;    /* reservations refused since the file was made */
    _Atomic int32_t claimant;   /* slot + 1 of who takes an unforeseeable amount now; 0: nobody */
    _Alignas(64) _Atomic int64_t paid_until_ns; /* compute budget: CLOCK_MONOTONIC until which launches are paid for */
    _Atomic int64_t busy_ns;    /* GPU time charged since the file was made */
    _Atomic int64_t launched_ns; /* CLOCK_MONOTONIC of the last launch, refreshed at most every 1 ms */
    char pad[40];
} hami_ledger_card;

typedef struct {
    _Atomic uint32_t magic; /* written last */
    uint32_t version;
    uint64_t bytes; /* of the whole file */
    uint64_t boot;  /* hash of the boot id: budgets of an earlier boot are void */
    int64_t reaped_ns; /* CLOCK_MONOTONIC of the last look for dead processes */
    _Alignas(64) pthread_mutex_t lock;
    char lock_pad[64];
    hami_ledger_card cards[HAMI_MAX_CARDS];
    hami_slot slots[HAMI_SLOTS];
    hami_loan loans[HAMI_LOANS];
} hami_ledger;

static_assert(sizeof(hami_ledger_card) % 64 == 0, "a card's lines are its own");
static_assert(sizeof(hami_ledger) <= 16 << 20, "what lies beyond the agent cuts off");
static_assert(sizeof(pthread_mutex_t) <= 64, "the lock keeps its place on both architectures");

/* Maps the file and takes a slot. 0, or a negated errno (-ENOSPC: 1024 live processes). `*slot` is this process's. */
int hami_ledger_open(const char *path, hami_ledger **ledger, int *slot);

/* Maps the file without a slot, to look at. 0, or a negated errno. */
int hami_ledger_map(const char *path, hami_ledger **ledger);

/* Index of the card with that UUID; -1: no process has used it. */
int hami_ledger_find(const hami_ledger *ledger, const char *uuid);

/* Notes a limit that has changed. For those who look; the processes themselves go by their own. */
void hami_ledger_note_limit(hami_ledger *ledger, int card, int64_t limit, int core_percent);

/* For what changes several rows at once, as loans.c does. */
void hami_ledger_lock(hami_ledger *ledger);
void hami_ledger_unlock(hami_ledger *ledger);
void hami_ledger_release_locked(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes);

/* Takes a slot again, after a fork. */
int hami_ledger_join(hami_ledger *ledger, int *slot);

/* Gives the slot and everything in it back. */
void hami_ledger_leave(hami_ledger *ledger, int slot);

/* Index of the card with that UUID, made if needed; -1 when 16 others are there. */
int hami_ledger_card_index(hami_ledger *ledger, const char *uuid, int64_t limit, int core_percent);

/* Reserves if the card's total stays within `limit`; slots of dead processes are emptied first when it would not. */
bool hami_ledger_reserve(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes, int64_t limit);

/* Gives back; never below zero. */
void hami_ledger_release(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes);

/* Adds a measured difference, limit or not; never below zero. */
void hami_ledger_add(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes);

/* Sets what this process holds of a kind to what was measured, limit or not: truth is not refused. */
void hami_ledger_settle(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes);

/* Moves so much of what was HAMI_UNATTRIBUTED to the kind that explains it. */
void hami_ledger_explain(hami_ledger *ledger, int slot, int card, hami_kind kind, int64_t bytes);

int64_t hami_ledger_held(hami_ledger *ledger, int card);          /* all processes, bytes */
int64_t hami_ledger_own(hami_ledger *ledger, int slot, int card); /* this process without HAMI_UNATTRIBUTED, bytes */

/* Empties the slots of dead processes of this pid namespace; returns how many there were. */
int hami_ledger_reap(hami_ledger *ledger);

/* What this process holds of a card, by kind, bytes; loans as buffers. */
void hami_ledger_kinds(hami_ledger *ledger, int slot, int card, int64_t held[HAMI_KINDS]);

/* Notes the pid that the slot's process has on the host: what NVML shows in a container. */
void hami_ledger_host_pid(hami_ledger *ledger, int slot, int pid);

/* Slot of the process with that pid in our pid namespace; -1: none of this container. */
int hami_ledger_slot_of(hami_ledger *ledger, int pid);

/* True when `pid` has a slot: by the container's pid, or by the host's where that is known. */
bool hami_ledger_has(hami_ledger *ledger, int pid);

/* How many processes hold something of the card: a context of theirs, and so they may run there. */
int hami_ledger_processes(hami_ledger *ledger, int card);

#endif
