/*
 * The page of turns: memory that all tenants of one card share, in which they take turns on it.
 *
 * Made by the broker (src/hami/agent/broker/turns.py knows the size, and the words that it clears when somebody comes or
 * goes) and mapped by every process that registered. Anybody here may write anything: nothing in it is a limit, every number is bounded by its reader, and
 * who is kept waiting too long goes without turns (docs/reference/broker.md). Times: CLOCK_MONOTONIC, ns.
 */
#ifndef HAMI_TURNS_H
#define HAMI_TURNS_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { HAMI_TURNS_MAGIC = 0x4e525554, HAMI_TURNS_VERSION = 1, HAMI_MEMBERS = 256, HAMI_TENANTS = 64 };

typedef struct {
    uint32_t magic, version;
    _Alignas(64) _Atomic uint64_t holder; /* low 16 bits: member + 1 of who has the turn, 0 nobody; above: hand-overs */
    _Atomic int64_t until_ns;             /* when what the holder has queued is through, as it reckons */
    _Atomic uint32_t handed;              /* rises with each hand-over; futex */
    uint32_t pad;
    _Atomic int64_t high_ns;              /* last launch of a tenant of high priority */
    _Alignas(64) _Atomic int64_t full_ns[HAMI_TENANTS];  /* when a tenant last had more to run than it was let, or up to when */
    _Atomic int64_t virtual_ns[HAMI_TENANTS];            /* time had, over weight */
    _Atomic int64_t used_ns[HAMI_TENANTS];               /* up to when a tenant counts as using the card */
    _Atomic uint8_t percent_of[HAMI_TENANTS];            /* what of the card is its own; 0: not said */
    _Alignas(2048) _Atomic int64_t asked_ns[HAMI_MEMBERS]; /* when a process last asked for its turn; 0: it does not want it */
    _Atomic uint16_t tenant_of[HAMI_MEMBERS];
    _Atomic int64_t had_ns[HAMI_MEMBERS]; /* when a process last had its turn */
    char rest[8192 - 2048 - HAMI_MEMBERS * 18];
} hami_turns_page;

static_assert(sizeof(hami_turns_page) == 8192, "the broker makes it of this size");
static_assert(offsetof(hami_turns_page, holder) == 64 && offsetof(hami_turns_page, asked_ns) == 2048, "the broker writes these");
static_assert(offsetof(hami_turns_page, full_ns) == 128 && offsetof(hami_turns_page, virtual_ns) == 640 &&
              offsetof(hami_turns_page, used_ns) == 1152 && offsetof(hami_turns_page, percent_of) == 1664, "and these of a tenant that comes");
static_assert(offsetof(hami_turns_page, tenant_of) == 4096 && offsetof(hami_turns_page, had_ns) == 4608, "and these of a process");

#endif
