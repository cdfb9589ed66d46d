/* Streams as queues, and what is recorded from them. Under fake_lock. */
#ifndef HAMI_FAKE_QUEUE_H
#define HAMI_FAKE_QUEUE_H

#include "fake.h"

enum { DEPTH = 1024 /* operations in flight before a launch blocks, as on a real card */ };

enum { FAKE_NOT_SO = 401, FAKE_CAPTURING = 900, FAKE_SPOILT, FAKE_WRONG_THREAD = 908 }; /* CUDA_ERROR_ILLEGAL_STATE, _STREAM_CAPTURE_UNSUPPORTED, _INVALIDATED, ... */

typedef struct CUevent_st {
    int64_t at_ns; /* -1: not yet */
    uint32_t times; /* recorded: the last one counts */
} event;

enum op_kind { OP_KERNEL, OP_EVENT, OP_GATE, OP_WAIT_EVENT };

/* What runs: a program's kernel called spin, after which an event may come late; a set or copy, which may take longer behind another; anything else. */
typedef enum { RUNS, SPINS, MOVES } fake_work;

typedef struct {
    enum op_kind kind;
    int64_t submitted_ns, duration_ns;
    int parts; /* of the card, that a kernel takes */
    event *event;
    uint32_t time; /* of the event's */
    const uint32_t *word;
    uint32_t value;
    bool held; /* a gate that was found closed; a kernel whose time is known */
    fake_work work;
} op;

typedef struct CUstream_st {
    _Atomic bool used;
    op ops[DEPTH * 4];
    unsigned int head, tail;
    int64_t ready_ns; /* end of the last operation worked out */
    fake_work last;   /* what that was */
    int card;
    fake_context *context; /* NULL: a default stream, of the current one */
    struct CUgraph_st *capture;
} stream;

struct CUgraph_st {
    int64_t duration_ns;
    int parts; /* of its widest node */
    int nodes;
    int mode; /* of its capture */
    const void *thread; /* that began it, by something of its own */
    bool spoilt;
    const fake_function *replaced; /* put in for another; NULL: none was */
    int64_t memory[SIM_LIVE_CARDS]; /* bytes of its memory nodes, not taken yet */
    int64_t passing; /* bytes that its nodes take and give back, on the first card */
    struct node *list;
};

struct node {
    int type;
    int64_t bytes;
    int card;
    struct CUgraph_st *child;
    const fake_function *function; /* of a kernel that was put in, not captured */
    struct node *next;
};

stream *fake_stream_of(CUstream handle);
bool fake_stream_idle(CUstream handle); /* under the lock */

/* Of a program whose default stream is each thread's own. */
static inline CUstream fake_own(CUstream handle)
{
    return handle == NULL ? CU_STREAM_PER_THREAD : handle;
}

/* Waits for room, as a real launch does; other threads go on meanwhile. */
void fake_push(stream *s, op o);

/* Whatever takes so many parts of the card for so long: at once, or as a node of what the stream records. Takes the lock itself. */
CUresult fake_run(CUstream handle, int64_t duration_ns, int parts, fake_work work);

struct node *fake_add_node(struct CUgraph_st *g, int type, int64_t bytes);

#endif
