/*
 * The watch threads: two a process, started by cuInit, all signals blocked.
 *
 * Once a second the one sets the ledger right (dead processes, NVML, pools, neighbours) and speaks with the broker; while a card is ours alone it looks
 * for newcomers 50 times a second. While gates are being closed the
 * other looks every millisecond that none stays so; otherwise it sleeps. It asks nobody and takes no lock: a call may have one, the driver's or ours,
 * until the card is through, and the card wait for a gate. Where a thread that closes one runs in real time, it does so before that.
 */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "limits/broker.h"
#include "price/gate.h"
#include "process/log.h"
#include "prim/prim.h"
#include "process/state.h"

enum { ROUND_NS = 1000 * 1000 * 1000, GLANCE_NS = 20 * 1000 * 1000, GATE_TICK_NS = 1000 * 1000, GATE_LINGER_NS = 20 * 1000 * 1000 };

static _Atomic uint32_t wanted;    /* 1: gates are in use */
static _Atomic int64_t gate_at_ns; /* last time a gate was closed */
static _Atomic int running_pid;
static _Atomic pid_t opener;    /* thread that opens gates; 0: it does not run yet */
static _Atomic int opener_rank; /* its real-time priority, as far as it was given one */
static _Atomic bool raising;    /* a thread has the kernel told of a higher one */

/* Under `raising`: it never falls. */
static bool raise_above(int rank)
{
    const pid_t thread = atomic_load(&opener);
    if (rank < atomic_load(&opener_rank))
        return true;
    if (thread == 0 || !hami_run_realtime(thread, rank + 1))
        return false;
    atomic_store(&opener_rank, rank + 1);
    return true;
}

/* Of two threads the lower could have the last word with the kernel, and the higher be told otherwise: nobody waits for the other, who may get no processor. */
bool hami_watch_outranks(void)
{
    const int rank = hami_realtime();
    if (rank == 0 || rank < atomic_load(&opener_rank))
        return true;
    if (atomic_exchange(&raising, true))
        return false;
    const bool raised = raise_above(rank);
    atomic_store(&raising, false);
    return raised;
}

void hami_watch_gate(void)
{
    hami_watch_outranks();
    atomic_store_explicit(&gate_at_ns, hami_now_ns(), memory_order_relaxed);
    if (atomic_exchange(&wanted, 1) == 0)
        hami_futex_wake(&wanted);
}

static void say_turns(hami_card *card)
{
    pthread_mutex_lock(&card->pacing);
    const hami_turns_had had = card->pacer.page == NULL ? (hami_turns_had){0} : card->pacer.had;
    pthread_mutex_unlock(&card->pacing);
    if (had.turns > 0 || had.waits > 0)
        hami_say(HAMI_LOG_DECISION,
                 "%u turns, waited %lld us for them; %u drained in %lld us; %u lost, %u times without, %u times bound; %u waits for the card",
                 had.turns, (long long)had.waited_ns / 1000, had.drains, (long long)had.drained_ns / 1000, had.lost, had.defiances, had.bound,
                 had.waits);
}

/*
 * Who pays for nothing, having no limit of time or the card to himself, is not seen to launch: he counts as using the card all the time. Then one that comes
 * does not take it for idle.
 */
static void speak_for_the_unpaid(hami_card *card)
{
    static bool spoke[HAMI_MAX_CARDS];
    bool *before = &spoke[card - hami_state.cards];
    const bool speaks = !hami_card_pays(card);
    pthread_mutex_lock(&card->pacing);
    if (speaks || *before) /* what was said is taken back */
        hami_turn_used(&card->pacer, speaks ? 2 * (int64_t)ROUND_NS : 0, hami_now_ns());
    pthread_mutex_unlock(&card->pacing);
    *before = speaks;
}

/*
 * Whoever is alone under the default policy pays for nothing and looks at nothing when he launches. Who comes to the card leaves word on the page of turns
 * with his first purchase, but is seen by the agent once a second: until then he had half of the card, whatever their percents.
 */
static bool others_buy(hami_card *card)
{
    pthread_mutex_lock(&card->pacing);
    const bool buy = hami_turn_others_buy(&card->pacer, hami_now_ns());
    pthread_mutex_unlock(&card->pacing);
    if (buy)
        hami_card_not_alone(card);
    return buy;
}

static void round_of_looks(void)
{
    hami_ledger_reap(hami_state.ledger);
    for (int i = 0; i < hami_state.card_count; i++) {
        hami_reconcile(&hami_state.cards[i]);
        others_buy(&hami_state.cards[i]);
        speak_for_the_unpaid(&hami_state.cards[i]);
        if (hami_log_level >= HAMI_LOG_DECISION)
            say_turns(&hami_state.cards[i]);
    }
    hami_pools_refresh(false);
    hami_broker_round();
    hami_throttle_update();
}

/* True: a card is ours alone. */
static bool look_for_newcomers(void)
{
    bool lone = false;
    for (int i = 0; i < hami_state.card_count; i++) {
        hami_card *card = &hami_state.cards[i];
        if (!hami_card_lone(card))
            continue;
        if (others_buy(card))
            hami_throttle_update();
        else
            lone = true;
    }
    return lone;
}

static void rest_of_round(void)
{
    const int64_t until = hami_now_ns() + ROUND_NS;
    for (int64_t now; (now = hami_now_ns()) < until;)
        hami_sleep_coarse_ns(look_for_newcomers() && until - now > GLANCE_NS ? GLANCE_NS : until - now);
}

static void *watch(void *unused)
{
    /* Not all processes of a container at the same moment: each starts NVML at its first look. */
    hami_sleep_coarse_ns(ROUND_NS / 2 + (int64_t)(getpid() % 64) * (ROUND_NS / 128));
    for (;;) {
        round_of_looks();
        rest_of_round();
    }
    return unused;
}

/* Sleeps once no gate has been used for a while. */
static void *watch_gates(void *unused)
{
    atomic_store(&opener, hami_thread());
    for (;;) {
        hami_futex_wait(&wanted, 0, -1);
        while (hami_gate_watch() || hami_now_ns() - atomic_load(&gate_at_ns) < GATE_LINGER_NS)
            hami_sleep_coarse_ns(GATE_TICK_NS);
        atomic_store(&wanted, 0);
        /* One may have been closed between the last look and this store. */
        if (hami_gate_watch())
            atomic_store(&wanted, 1);
    }
    return unused;
}

int hami_watch_start(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, kept;
    if (atomic_exchange(&running_pid, (int)getpid()) == (int)getpid())
        return 0;
    atomic_store(&opener, 0);
    atomic_store(&opener_rank, 0);
    atomic_store(&raising, false);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &kept); /* inherited by the thread: the program's handlers never run in it */
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    int error = pthread_create(&thread, &attributes, watch_gates, NULL);
    if (error == 0)
        error = pthread_create(&thread, &attributes, watch, NULL);
    if (error != 0)
        atomic_store(&running_pid, 0);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    return -error;
}
