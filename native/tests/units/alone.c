/*
 * Whatever changes the ledger does it alone: while another thread has the lock, half way through a change, it waits and has changed nothing. The thread that
 * would change it is seen to sleep, or to be through; no time is judged. See units.h.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/ledger.h"
#include "memory/loans.h"
#include "prim/prim.h"
#include "units.h"

#define LIMIT ((int64_t)4 << 30)
#define MIB ((int64_t)1 << 20)
enum { CARD = 0, KEY = 7, LOOK_NS = 100 * 1000 };

static hami_ledger *ledger, before;
static int slot, row;
static _Atomic pid_t worker;
static _Atomic bool through;

static void reaps(void)
{
    hami_ledger_reap(ledger);
}

static void joins(void)
{
    int again;
    hami_ledger_join(ledger, &again);
}

static void leaves(void)
{
    hami_ledger_leave(ledger, slot);
}

static void reserves(void)
{
    hami_ledger_reserve(ledger, slot, CARD, HAMI_BUFFER, MIB, LIMIT);
}

static void releases(void)
{
    hami_ledger_release(ledger, slot, CARD, HAMI_BUFFER, MIB);
}

static void adds(void)
{
    hami_ledger_add(ledger, slot, CARD, HAMI_POOL, MIB);
}

static void settles(void)
{
    hami_ledger_settle(ledger, slot, CARD, HAMI_UNATTRIBUTED, 5 * MIB);
}

static void explains(void)
{
    hami_ledger_explain(ledger, slot, CARD, HAMI_CONTEXT, MIB);
}

static void notes_a_limit(void)
{
    hami_ledger_note_limit(ledger, CARD, LIMIT / 2, 20);
}

static void adds_a_card(void)
{
    hami_ledger_card_index(ledger, "GPU-other", LIMIT, 50);
}

static void offers(void)
{
    hami_loan_offer(ledger, slot, CARD, KEY + 1, MIB);
}

static void borrows(void)
{
    hami_loan_take(ledger, slot, slot, CARD, KEY, MIB);
}

static void gives_back(void)
{
    hami_loan_return(ledger, slot, row);
}

static void ends_a_loan(void)
{
    hami_loan_end(ledger, slot, CARD, KEY, HAMI_BUFFER, MIB);
}

static const struct {
    const char *name;
    void (*change)(void);
} changes[] = {
    {"reap", reaps},
    {"join", joins},
    {"leave", leaves},
    {"reserve", reserves},
    {"release", releases},
    {"add", adds},
    {"settle", settles},
    {"explain", explains},
    {"note_limit", notes_a_limit},
    {"card_index", adds_a_card},
    {"loan_offer", offers},
    {"loan_take", borrows},
    {"loan_return", gives_back},
    {"loan_end", ends_a_loan},
};

static void *change(void *which)
{
    atomic_store(&worker, gettid());
    (*(void (*const *)(void))which)();
    atomic_store(&through, true);
    return NULL;
}

/* It sleeps: for the lock, since nothing else in there does. */
static bool asleep(pid_t thread)
{
    char path[64], line[1024] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    const ssize_t length = hami_read_file(path, line, sizeof line - 1);
    const char *state = length > 0 ? strrchr(line, ')') : NULL;
    return state != NULL && state[1] == ' ' && state[2] == 'S';
}

/* With a slot of one that is dead, something lent, and something held. */
static void fill(const char *path)
{
    CHECK(hami_ledger_open(path, &ledger, &slot) == 0 && hami_ledger_card_index(ledger, "GPU-alone", LIMIT, 50) == CARD);
    CHECK(hami_ledger_reserve(ledger, slot, CARD, HAMI_BUFFER, 3 * MIB, LIMIT));
    hami_ledger_settle(ledger, slot, CARD, HAMI_UNATTRIBUTED, 2 * MIB);
    hami_loan_offer(ledger, slot, CARD, KEY, MIB);
    row = hami_loan_take(ledger, slot, slot, CARD, KEY, MIB);
    CHECK(row >= 0);
    const pid_t dead = fork();
    if (dead == 0) {
        CHECK(hami_ledger_join(ledger, &slot) == 0 && hami_ledger_reserve(ledger, slot, CARD, HAMI_BUFFER, MIB, LIMIT));
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(dead, &status, 0) == dead && status == 0);
}

/* What others hold and are; the lock itself and what follows it change as they wait. */
static bool unchanged(void)
{
    return memcmp(ledger->cards, before.cards, sizeof before.cards) == 0 && memcmp(ledger->slots, before.slots, sizeof before.slots) == 0 &&
           memcmp(ledger->loans, before.loans, sizeof before.loans) == 0;
}

static void waits_for_the_lock(size_t which)
{
    pthread_t thread;
    const char *name = changes[which].name;
    atomic_store(&worker, 0);
    atomic_store(&through, false);
    hami_ledger_lock(ledger);
    memcpy(&before, ledger, sizeof before);
    CHECK(pthread_create(&thread, NULL, change, (void *)&changes[which].change) == 0);
    while (!atomic_load(&through) && (atomic_load(&worker) == 0 || !asleep(atomic_load(&worker))))
        hami_sleep_coarse_ns(LOOK_NS);
    if (atomic_load(&through) || !unchanged()) {
        printf("%s does not wait for who has the lock\n", name);
        exit(1);
    }
    hami_ledger_unlock(ledger);
    CHECK(pthread_join(thread, NULL) == 0 && atomic_load(&through));
    if (unchanged()) {
        printf("%s changes nothing\n", name);
        exit(1);
    }
}

void alone(const char *path)
{
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s-%zu", path, i);
        fill(file);
        waits_for_the_lock(i);
    }
    printf("%zu changes, each alone\n", sizeof changes / sizeof changes[0]);
}
