/*
 * A simulated CUDA driver: libcuda.so.1 for machines without a card.
 *
 * device.c has cards, visible.c which of them a program sees, context.c contexts, module.c modules, libraries and functions, green.c parts of contexts, lookup.c lookups;
 * memory.c, pool.c, vmm.c and array.c ways to take memory, ipc.c that of another process; queue.c streams, events and their time,
 * launch.c what runs, place.c what runs beside what, graph.c graphs. Time is real time: a kernel of 5 us ends 5 us after it could
 * start, computed, not slept, and cards are shared between processes in turns of 2 ms. Kernels are known by name: `spin` runs for
 * the nanoseconds that its first parameter points to, every other for 2 us; power.c may make both longer. FAKE_CUDA_BUSY: says at its
 * end for how long the first card was busy with it. Knows nothing of the library that is tested on it.
 */
#ifndef HAMI_FAKE_H
#define HAMI_FAKE_H

#include <pthread.h>
#include <stdbool.h>

#include "hami/cuda_abi.h"
#include "hami/sim_live.h"

#define API __attribute__((visibility("default")))

typedef struct {
    const char *name;
    void *address;
} fake_export;

typedef struct {
    const char *base;
    int version;
    const char *name;
} fake_version;

extern const fake_export fake_exports[];
extern const unsigned int fake_export_count;
extern const fake_version fake_versions[];

int fake_stub(const char *name);

typedef struct {
    char uuid[96];
    char card_uuid[96]; /* of a MIG device: that of the card it is a part of */
    int64_t total;      /* bytes */
    int at;             /* among all cards of the description */
} fake_card;

typedef struct CUctx_st {
    CUdevice device;
    int64_t bytes;
    int64_t local; /* bytes a thread, beyond the first KiB */
    size_t limits[16];
    int references; /* beyond its maker's */
    struct CUctx_st *below; /* on this thread's stack */
} fake_context;

extern pthread_mutex_t fake_lock; /* guards everything below */
extern fake_card fake_cards[SIM_LIVE_CARDS];
extern int fake_card_count;
extern sim_live *fake_live;

void fake_choose_cards(void); /* those that the program may see */
bool fake_ready(void); /* cuInit was called in this process */
sim_live_process *fake_self(void);
fake_context *fake_current(void);

/* Host memory at that address has been freed, or with NULL all that was made in the context. Under the lock. */
void fake_host_gone(const fake_context *context, const void *address);
void fake_streams_gone(const fake_context *context); /* what they capture goes with it */

/* A sparse array, or with 0 all of a context, holds nothing any more. Under the lock. */
void fake_array_gone(uint64_t array, const fake_context *context);

API CUresult cuCtxSynchronize(void);

/* Give back the lock, and answer. */
CUresult fake_leave(CUresult result);

#define NEED_START                             \
    do {                                       \
        if (!fake_ready())                     \
            return CUDA_ERROR_NOT_INITIALIZED; \
    } while (0)
#define NEED_CARD(device)                                \
    do {                                                 \
        NEED_START;                                      \
        if ((device) < 0 || (device) >= fake_card_count) \
            return 101;                                  \
    } while (0)

/* FAKE_CUDA_UNMAP_WAITS: to unmap memory waits for the card, and nothing is launched meanwhile. Taken before fake_lock. */
extern pthread_mutex_t fake_unmapping;

/* FAKE_CUDA_SLOW_MS: how long it takes to make a context or load a module whose memory is taken already. */
void fake_take_time(void);

/*
 * FAKE_CUDA_SLOW_END_MS: how long it takes from when something has ended, and its handle may be another's, to the answer; FAKE_CUDA_ENDS_TO: the
 * descriptor to which a byte is written at that moment.
 */
void fake_end_slowly(void);

/* FAKE_CUDA_FAILS: the one function that fails, as long as the variable is there. */
bool fake_fails(const char *name);

/* Takes bytes of a card, false when it has not that much left; negative gives back. Under the lock. */
bool fake_take(int card, int64_t bytes);

int64_t fake_now(void);

/* FAKE_CUDA_POWER: how long a kernel of that length, ready then, takes on a card whose power holds it back. Once a kernel, under the lock. */
int64_t fake_at_its_clock(int64_t ready_ns, int64_t duration_ns);

/* Memory nodes of graphs: takes what a run needs beyond what the card's graph pool has. Under the lock. */
bool fake_graph_memory(int card, int64_t bytes);
bool fake_graph_room(int card, int64_t bytes); /* that many for those that run now, beside what is in use */
int64_t fake_graph_busy(void); /* bytes of those that run now */
void fake_capture_free(CUstream stream, CUdeviceptr address);
CUdeviceptr fake_graph_address(int card, int64_t bytes);
CUdeviceptr fake_address(int64_t bytes);
bool fake_on_card(CUdeviceptr address);
bool fake_is_capturing(CUstream stream);

/* What may give memory back, or load code, is called while a capture of the mode that forbids it to all is under way: that is spoilt. Under the lock. */
bool fake_forbidden(void);
enum { FAKE_FORBIDDEN = 900 };
int fake_card_of(CUstream stream);
CUdeviceptr fake_capture_alloc(CUstream stream, int64_t bytes);

typedef struct CUfunc_st {
    char name[64]; /* `local_N`: needs N bytes of local memory a thread */
    bool loaded;
    int local;
    struct CUfunc_st *next; /* of its module */
} fake_function;

typedef struct CUmod_st {
    int64_t bytes;
    int64_t late; /* bytes that it takes once it is loaded */
    int card;
    fake_function *functions;
    struct CUmod_st *next; /* of those that were unloaded */
} fake_module;

/* A card takes a kernel's local memory for all its threads when the first that needs so much is launched. Under the lock. */
bool fake_local(const fake_function *function);

#endif
