/*
 * Tenants on a simulated card, in simulated time.
 *
 * The card runs one kernel at a time, shares itself out in slices of 1 ms where several tenants have work queued, and pays 70 us
 * for each change of tenant: so two queued tenants get 93 % together, as on a real card, and taking turns of 10 ms costs what it
 * cost there. Waking a thread takes 50 us. Each tenant is one thread that launches kernels of one length with some host work
 * between them, as buy.c does it.
 */
#ifndef HAMI_TEST_TURNS_SIM_H
#define HAMI_TEST_TURNS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "pay/polls.h"
#include "pay/turns.h"

enum { MOST = 8, LENGTHS = 4 };
#define SECOND ((int64_t)1000000000)
#define MILLI ((int64_t)1000000)
#define NEVER INT64_MAX
#define BOOT (1000 * SECOND)

typedef enum { LAUNCH, PACE, DRAIN, ROOM, SYNC, DEAD } state;

typedef struct {
    int percent;
    int64_t kernel_ns, host_ns;
    int priced; /* percent of what a kernel takes; 0: 100 */
    int every;  /* launches after which all are waited for; 0: never */
    bool sync;
    int64_t polls_ns; /* it waits by asking again and again, so long after each answer; 0: by a call that blocks */
    int glances; /* launches after which it asks once whether all is through, whatever the answer; 0: never */
    bool unseen; /* nobody sees it ask */
    int64_t stall_ns; /* that a wait goes on though all is through: a function of the host's in the stream, say */
    int64_t late_ns; /* that its host comes back after some of the waits */
    int late_every;  /* after how many launches that is; 0: never */
    int64_t slow_ns, slow_until_ns; /* until so long after BOOT its host takes so much more for each launch */
    int ahead;       /* launches that it leaves unfinished at most; 0: as many as the card takes */
    bool borrows;
    bool learned;    /* what its launches cost is learned from samples; */
    int64_t lengths_ns[LENGTHS]; /* they are of these lengths in turns, all 0: of `kernel_ns` */
    bool shuffled;   /* in no order */
    int64_t rest_ns; /* its host pauses for so long once it has waited for `every` launches */
    int64_t begins_ns, ends_ns; /* after BOOT; ends 0: never */
    /* from here on: now */
    hami_pacer pacer;
    hami_polls polls;
    hami_purse purse;
    _Atomic int64_t paid;
    int64_t need, price_ns;
    state at;
    int64_t wake_ns;
    bool waits_for_turn;
    int queued, launched;
    int64_t head_left_ns;
    int64_t done_ns, wait_most_ns, waiting_since, waits_since, through_since;
    int64_t windows_ns[20000]; /* done, by millisecond */
} tenant;

extern tenant tenants[MOST];
extern int count; /* of them */
extern hami_turns_page page;
extern int64_t now; /* CLOCK_MONOTONIC there */

uint64_t dice(void); /* the same each run */

typedef void (*meddler)(void); /* called each millisecond */

/* From BOOT on; the first second is not counted. `turns`: they have a page. */
void simulate(int seconds, bool turns, meddler meddle);

void tenants_are(int number, const tenant *list);

/*
 * Of a tenant whose prices are learned (learned.c): nothing is known of any; a launch is queued, its length; the card works at the first that is queued,
 * or is through with it, the length of the next; what is through is read; and what the next is charged. False: it has to wait for the first figures.
 */
void learn_nothing(void);
int64_t launch_length(int i, int64_t price_ns);
void launch_runs(int i, int64_t gpu_ns);
int64_t launch_ends(int i, int64_t gpu_ns);
void learn(int i);
bool learned_price(int i, int64_t *price_ns);

/* Percent of the card that a tenant had. */
double share(int i, int seconds);

#endif
