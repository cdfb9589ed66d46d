/*
 * What the library and the broker in the agent say to each other: one message a packet, fixed layouts, little-endian.
 *
 * src/hami/wire/broker.py is the same in Python; tests/broker.vectors holds both to it. Fields named `spare` are 0.
 */
#ifndef HAMI_BROKER_WIRE_H
#define HAMI_BROKER_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum { HAMI_WIRE_VERSION = 1, HAMI_WIRE_KINDS = 7, HAMI_WIRE_MAX = 152 };

enum hami_wire_kind {
    HAMI_HELLO = 1, /* below 16 from the library */
    HAMI_USAGE = 2,
    HAMI_WELCOME = 16,
    HAMI_LIMIT = 17,
    HAMI_SEEN = 18,
    HAMI_REFUSED = 19,
};

enum { HAMI_LIMIT_LAST = 1, HAMI_LIMIT_MIXED = 2 };

typedef struct {
    uint16_t version, kind;
    uint32_t size; /* of the whole message, bytes */
} hami_wire_header;

typedef struct {
    hami_wire_header header;
    uint32_t pid; /* in its own namespace */
    uint32_t spare;
    uint64_t pid_namespace;
    uint64_t start_ticks; /* clock ticks since boot */
    char program[32];
} hami_wire_hello;
static_assert(sizeof(hami_wire_hello) == 64, "hello");

typedef struct {
    hami_wire_header header;
    uint32_t card; /* number, as in the limit */
    uint32_t spare;
    int64_t held[HAMI_WIRE_KINDS]; /* bytes, by hami_kind */
    int64_t busy_ns;               /* GPU time charged to this process */
    int64_t launched_ns;           /* CLOCK_MONOTONIC, 0: never */
    int64_t waited_ns;             /* time its launches waited */
    uint64_t refused;              /* reservations, the whole container */
} hami_wire_usage;
static_assert(sizeof(hami_wire_usage) == 104, "usage");

typedef struct {
    hami_wire_header header;
    uint32_t host_pid;
    uint32_t cards; /* so many limits follow */
    uint64_t session;
} hami_wire_welcome;
static_assert(sizeof(hami_wire_welcome) == 24, "welcome");

typedef struct {
    hami_wire_header header;
    uint32_t card;
    uint32_t flags;
    uint64_t generation;
    int64_t limit;         /* bytes, INT64_MAX: the whole card */
    uint32_t core_percent; /* 1 to 100 */
    uint32_t core_policy;  /* hami_core_policy */
    uint32_t priority;     /* 0 high, 1 low */
    int32_t member;        /* place on the page that comes along, -1: none */
    uint32_t tenant;
    uint32_t spare;
    char uuid[96];
} hami_wire_limit;
static_assert(sizeof(hami_wire_limit) == HAMI_WIRE_MAX && offsetof(hami_wire_limit, uuid) == 56, "limit");

typedef struct {
    hami_wire_header header;
    uint32_t card;
    uint32_t others;   /* processes of other containers, or of none, on the card */
    int64_t own_bytes; /* NVML's bytes of this process, -1: not in its list */
} hami_wire_seen;
static_assert(sizeof(hami_wire_seen) == 24, "seen");

typedef struct {
    hami_wire_header header;
    uint32_t reason;
    uint32_t spare;
    char text[120];
} hami_wire_refused;
static_assert(sizeof(hami_wire_refused) == 136, "refused");

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the protocol is little-endian and these structures are sent as they lie in memory"
#endif

#endif
