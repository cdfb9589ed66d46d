/*
 * Tenants taking turns on a simulated card, in simulated time: the library's own turns.c and budget.c, the same result each run.
 *
 * The card runs one kernel at a time, shares itself out in slices of 1 ms where several tenants have work queued, and pays 70 us for each
 * change of tenant: so two queued tenants get 93 % together, as on a real card, and taking turns of 10 ms costs what it cost there. Waking
 * a thread takes 50 us. Each tenant is one thread that launches kernels of
 * one length with some host work between them, as buy.c does it.
 *
 *   turns shares | bound | hostile | deaths | idle     prints a line a case, exits 1 when one is not as it should be
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "turns.h"

enum {
    SLICE_NS = 1000 * 1000,
    SWITCH_NS = 70 * 1000,
    WAKE_NS = 50 * 1000,
    POLL_NS = 10 * 1000,
    LAUNCH_NS = 4 * 1000,
    DEPTH = 1024,
    MOST = 8
};
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
    bool borrows;
    int64_t begins_ns, ends_ns; /* after BOOT; ends 0: never */
    /* from here on: now */
    hami_pacer pacer;
    hami_purse purse;
    _Atomic int64_t paid;
    int64_t need;
    state at;
    int64_t wake_ns;
    bool waits_for_turn;
    int queued, launched;
    int64_t head_left_ns;
    int64_t done_ns, wait_most_ns, waiting_since;
    int64_t windows_ns[20000]; /* done, by millisecond */
} tenant;

static tenant tenants[MOST];
static int count;
static hami_turns_page page;
static int64_t now, gpu_ns, slice_left, switch_left;
static int owner;
static uint64_t dice_state;

static uint64_t dice(void)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    return dice_state ^= dice_state << 17;
}

/* ---- the card ---- */

static int next_owner(void)
{
    for (int i = 1; i <= count; i++) {
        const int t = (owner + i) % count;
        if (tenants[t].queued > 0)
            return t;
    }
    return -1;
}

/* Up to when the card may run on without anybody looking; runs it to there. */
static void run_card(int64_t until)
{
    while (gpu_ns < until) {
        if (switch_left > 0) {
            const int64_t step = switch_left < until - gpu_ns ? switch_left : until - gpu_ns;
            switch_left -= step;
            gpu_ns += step;
            continue;
        }
        if (owner < 0 || tenants[owner].queued == 0 || slice_left <= 0) {
            const int t = next_owner();
            if (t < 0) {
                gpu_ns = until;
                return;
            }
            if (t != owner)
                switch_left = SWITCH_NS;
            owner = t;
            slice_left = SLICE_NS;
            continue;
        }
        tenant *t = &tenants[owner];
        int64_t step = until - gpu_ns;
        step = step < t->head_left_ns ? step : t->head_left_ns;
        step = step < slice_left ? step : slice_left;
        t->head_left_ns -= step;
        slice_left -= step;
        gpu_ns += step;
        if (now > BOOT + SECOND)
            t->done_ns += step;
        if (gpu_ns < BOOT + 20 * SECOND)
            t->windows_ns[(gpu_ns - BOOT) / MILLI] += step;
        if (t->head_left_ns == 0 && --t->queued > 0)
            t->head_left_ns = t->kernel_ns;
    }
}

static void push(tenant *t)
{
    if (t->queued++ == 0)
        t->head_left_ns = t->kernel_ns;
}

/* ---- a thread ---- */

static int64_t price_of(const tenant *t)
{
    return t->priced == 0 ? t->kernel_ns : t->kernel_ns * t->priced / 100;
}

static void pace(tenant *t)
{
    int64_t until = 0;
    t->pacer.dry = t->queued == 0;
    const hami_step step = hami_pace(&t->pacer, &t->paid, &t->purse, t->need, t->percent, now, &until);
    t->waits_for_turn = false;
    if (step == HAMI_GO) {
        t->at = ROOM;
        t->wake_ns = now;
        return;
    }
    t->at = step == HAMI_DRAIN ? DRAIN : PACE;
    t->waits_for_turn = step == HAMI_WAIT;
    t->wake_ns = step == HAMI_DRAIN ? now + POLL_NS : (until > now ? until : now) + 5000;
}

static void step_thread(tenant *t)
{
    switch (t->at) {
    case LAUNCH:
        if (t->ends_ns != 0 && now > BOOT + t->ends_ns) {
            t->wake_ns = NEVER;
            break;
        }
        t->waiting_since = now;
        t->need = hami_purse_spend(&t->purse, price_of(t));
        if (t->need == 0) {
            t->at = ROOM;
            break;
        }
        const int64_t debt = -atomic_load(&t->purse.credit_ns);
        t->need = t->need < debt ? debt : t->need;
        t->pacer.spare_ns = price_of(t) > t->need ? price_of(t) - t->need : 0;
        pace(t);
        break;
    case PACE:
        pace(t);
        break;
    case DRAIN:
        t->wake_ns = now + POLL_NS;
        if (t->queued == 0) {
            hami_turn_over(&t->pacer, now);
            pace(t);
        } else {
            hami_turn_draining(&t->pacer, now);
        }
        break;
    case ROOM:
        if (t->queued >= DEPTH) {
            t->wake_ns = now + 20000;
            break;
        }
        if (now - t->waiting_since > t->wait_most_ns)
            t->wait_most_ns = now - t->waiting_since;
        push(t);
        t->launched++;
        t->at = t->sync || (t->every > 0 && t->launched % t->every == 0) ? SYNC : LAUNCH;
        t->wake_ns = now + LAUNCH_NS + t->host_ns;
        break;
    case SYNC:
        t->wake_ns = now + POLL_NS;
        if (t->queued == 0)
            t->at = LAUNCH;
        break;
    case DEAD:
        t->wake_ns = NEVER;
        break;
    }
    if (t->pacer.handed) {
        t->pacer.handed = false;
        for (int i = 0; i < count; i++) {
            if (tenants[i].waits_for_turn && tenants[i].wake_ns > now + WAKE_NS)
                tenants[i].wake_ns = now + WAKE_NS;
        }
    }
}

typedef void (*meddler)(void); /* called each millisecond */

static void simulate(int seconds, bool turns, meddler meddle)
{
    memset(&page, 0, sizeof page);
    now = gpu_ns = BOOT;
    slice_left = switch_left = 0;
    owner = 0;
    dice_state = 88172645463325252u;
    for (int i = 0; i < count; i++) {
        tenant *t = &tenants[i];
        t->pacer = (hami_pacer){.page = turns ? &page : NULL, .member = i, .tenant = i, .weight = t->percent, .borrows = t->borrows};
        t->wake_ns = BOOT + i * 100 + t->begins_ns;
        t->at = LAUNCH;
    }
    int64_t meddled = BOOT;
    while (now < BOOT + (seconds + 1) * SECOND) {
        int64_t next = meddle != NULL ? meddled + 1000000 : NEVER;
        for (int i = 0; i < count; i++)
            next = tenants[i].wake_ns < next ? tenants[i].wake_ns : next;
        run_card(next);
        now = next;
        if (meddle != NULL && now >= meddled + 1000000) {
            meddled = now;
            meddle();
        }
        for (int i = 0; i < count; i++) {
            if (tenants[i].wake_ns <= now)
                step_thread(&tenants[i]);
        }
    }
}

static void tenants_are(int number, const tenant *list)
{
    count = number;
    memset(tenants, 0, sizeof tenants);
    for (int i = 0; i < number; i++)
        tenants[i] = list[i];
}

static double share(int i, int seconds)
{
    return 100.0 * (double)tenants[i].done_ns / (double)(seconds * SECOND);
}

static bool near(double got, double wanted, double slack)
{
    return got <= wanted + slack && got >= wanted - slack;
}

/* ---- cases ---- */

static int failed;

static void say(bool ok, const char *name, int seconds)
{
    double sum = 0;
    printf("%-4s %-44s", ok ? "ok" : "NO", name);
    for (int i = 0; i < count; i++) {
        printf(" %5.2f", share(i, seconds));
        sum += share(i, seconds);
    }
    printf("  sum %6.2f, longest wait %.1f ms\n", sum, (double)tenants[0].wait_most_ns / 1e6);
    failed += !ok;
}

static const int64_t US = 1000, MS = 1000000;

static void pair(const char *name, tenant a, tenant b, double wanted_a, double wanted_b, double least_sum)
{
    enum { SECONDS = 10 };
    tenants_are(2, (tenant[]){a, b});
    simulate(SECONDS, true, NULL);
    const double sum = share(0, SECONDS) + share(1, SECONDS);
    say(near(share(0, SECONDS), wanted_a, 2) && near(share(1, SECONDS), wanted_b, 2) && sum >= least_sum, name, SECONDS);
}

#define QUEUED(p, ns) ((tenant){.percent = (p), .kernel_ns = (ns)})
#define SYNCED(p, ns) ((tenant){.percent = (p), .kernel_ns = (ns), .sync = true})
#define BOUND(p, ns, host) ((tenant){.percent = (p), .kernel_ns = (ns), .host_ns = (host)})

static void shares(void)
{
    pair("30/70, 1 ms queued", QUEUED(30, MS), QUEUED(70, MS), 30, 70, 98);
    pair("30/70, 0.1 ms queued", QUEUED(30, 100 * US), QUEUED(70, 100 * US), 30, 70, 98);
    pair("30/70, 10 us and 1 ms queued", QUEUED(30, 10 * US), QUEUED(70, MS), 30, 70, 98);
    pair("10/90, 1 ms queued", QUEUED(10, MS), QUEUED(90, MS), 10, 90, 98);
    pair("50/50, 1 ms queued", QUEUED(50, MS), QUEUED(50, MS), 50, 50, 98);
    pair("50/50, 5 ms and 0.1 ms queued", QUEUED(50, 5 * MS), QUEUED(50, 100 * US), 50, 50, 98);
    pair("30/70, 5 ms with a sync after each, 0.1 ms queued", SYNCED(30, 5 * MS), QUEUED(70, 100 * US), 30, 70, 97.5);
    pair("20/30, 1 ms queued: no more than their caps", QUEUED(20, MS), QUEUED(30, MS), 20, 30, 49);
    /* Bound by its host at a quarter of the card: untouched beside a full queue. */
    tenants_are(2, (tenant[]){BOUND(40, 8 * US, 20 * US), QUEUED(50, MS)});
    simulate(10, true, NULL);
    say(share(1, 10) > 46 && share(0, 10) > 14, "8 us + 20 us host at 40, 1 ms queued at 50", 10);
    tenants_are(4, (tenant[]){QUEUED(25, MS), QUEUED(25, 100 * US), QUEUED(25, MS), QUEUED(25, 300 * US)});
    simulate(10, true, NULL);
    say(near(share(0, 10), 25, 2) && near(share(1, 10), 25, 2) && near(share(2, 10), 25, 2) && near(share(3, 10), 25, 2) &&
            share(0, 10) + share(1, 10) + share(2, 10) + share(3, 10) >= 98,
        "four at 25", 10);
    /* The control: the same without turns pays for every slice. */
    tenants_are(2, (tenant[]){QUEUED(30, MS), QUEUED(70, MS)});
    simulate(10, false, NULL);
    say(share(0, 10) + share(1, 10) < 96, "control: 30/70, 1 ms queued, no turns", 10);
    tenants_are(1, (tenant[]){QUEUED(60, MS)});
    simulate(10, true, NULL);
    say(near(share(0, 10), 60, 0.5), "alone at 60", 10);
}

/* What all have together, with turns or without. */
static double sum_of(int number, const tenant *list, bool turns)
{
    double sum = 0;
    tenants_are(number, list);
    simulate(10, turns, NULL);
    for (int i = 0; i < number; i++)
        sum += share(i, 10);
    return sum;
}

/*
 * Bound by their hosts, and at their caps all the same, be it by prices that are too high: in turns they would leave the card idle while
 * each waits for the others (30 to 66 percent of it used). They overlap as if nobody took turns, but for the first moments of each try.
 */
static void bound(void)
{
    static const int64_t hosts_ns[] = {8000, 26000, 50000};
    for (int priced = 100; priced <= 130; priced += 10) {
        for (size_t i = 0; i < sizeof hosts_ns / sizeof hosts_ns[0]; i++) {
            const tenant one = {.percent = 25, .kernel_ns = 8 * US, .host_ns = hosts_ns[i], .priced = priced, .every = 120};
            const tenant list[] = {one, one, one, one};
            const double free = sum_of(4, list, false), got = sum_of(4, list, true);
            printf("%-4s four at 25, 8 us + %lld us host, priced %d %%: %.1f, without turns %.1f\n", got > 0.96 * free ? "ok" : "NO",
                   (long long)hosts_ns[i] / 1000, priced, got, free);
            failed += got <= 0.96 * free;
        }
    }
    /* Who fills his turns goes on taking them, though he waits for the card now and then. */
    const tenant steps[] = {{.percent = 30, .kernel_ns = 20 * US, .host_ns = 14 * US, .every = 700},
                            {.percent = 70, .kernel_ns = 20 * US, .host_ns = 14 * US, .every = 700}};
    const double free = sum_of(2, steps, false), got = sum_of(2, steps, true);
    printf("%-4s 30/70, 20 us + 14 us host, all waited for at times: %.1f, without turns %.1f\n", got > free + 5 ? "ok" : "NO", got, free);
    failed += got <= free + 5;
}

static void write_garbage(void)
{
    unsigned char *bytes = (unsigned char *)&page;
    for (int i = 0; i < 64; i++)
        bytes[64 + dice() % (sizeof page - 64)] = (unsigned char)dice();
}

static void keep_the_turn(void)
{
    atomic_store(&page.holder, 200); /* a member that nobody is */
    atomic_store(&page.until_ns, now + 50 * MS);
    atomic_store(&page.full_ns[63], now);
}

static void keep_the_turn_for_ever(void)
{
    atomic_store(&page.holder, 200);
    atomic_store(&page.until_ns, INT64_MAX);
    atomic_store(&page.full_ns[63], now);
}

static void always_be_next(void)
{
    atomic_store(&page.asked_ns[199], now);
    atomic_store(&page.tenant_of[199], 63);
    atomic_store(&page.virtual_ns[63], INT64_MIN / 2);
    atomic_store(&page.full_ns[63], now);
}

static void deny_the_turn(void)
{
    atomic_fetch_add(&page.holder, (uint64_t)1 << 16);
}

/* Whoever writes what he likes: the others keep nearly what time slicing would have left them. */
static void hostile(void)
{
    static const struct {
        const char *name;
        meddler meddle;
    } cases[] = {{"garbage", write_garbage},
                 {"somebody keeps the turn", keep_the_turn},
                 {"somebody keeps the turn for ever", keep_the_turn_for_ever},
                 {"somebody is always next", always_be_next},
                 {"somebody takes every turn away", deny_the_turn}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tenants_are(2, (tenant[]){QUEUED(30, MS), QUEUED(70, MS)});
        simulate(20, true, cases[i].meddle);
        say(share(0, 20) > 25 && share(0, 20) <= 30.5 && share(1, 20) <= 70.5 && share(0, 20) + share(1, 20) > 80 &&
                tenants[0].wait_most_ns < SECOND,
            cases[i].name, 20);
    }
}

static int64_t die_at;

static void die(void)
{
    if (now >= die_at && tenants[1].at != DEAD && tenants[1].pacer.word != 0) {
        tenants[1].at = DEAD;
        tenants[1].wake_ns = NEVER;
        tenants[1].queued = 0;
    }
}

/* Killed in the middle of its turn: the other goes on as soon as after a turn of it. */
static void deaths(void)
{
    for (int i = 0; i < 20; i++) {
        tenants_are(2, (tenant[]){QUEUED(60, MS), QUEUED(40, MS)});
        die_at = BOOT + 2 * SECOND + i * 1300000;
        simulate(5, true, die);
        say(tenants[1].at == DEAD && tenants[0].wait_most_ns < 60 * MS && share(0, 5) > 59, "killed within its turn", 5);
    }
}

/* Percent of the card that a tenant had from one millisecond after BOOT to another. */
static double between(int i, int from_ms, int to_ms)
{
    int64_t sum = 0;
    for (int ms = from_ms; ms < to_ms; ms++)
        sum += tenants[i].windows_ns[ms];
    return 100.0 * (double)sum / (double)((to_ms - from_ms) * MILLI);
}

/* Beside a neighbour that wants the card from the 3rd to the 6th second: all of it while it does not, the percent while it does. */
static void idle(void)
{
    tenants_are(2, (tenant[]){{.percent = 30, .kernel_ns = 100 * US, .borrows = true},
                              {.percent = 70, .kernel_ns = 100 * US, .begins_ns = 3 * SECOND, .ends_ns = 6 * SECOND}});
    simulate(9, true, NULL);
    const double before = between(0, 1000, 3000), at_once = between(0, 3020, 3120), beside = between(0, 3200, 5900);
    const double neighbour = between(1, 3200, 5900), after = between(0, 6200, 9000);
    printf("alone %.1f, at once %.1f, beside %.1f, the neighbour %.1f, alone again %.1f\n", before, at_once, beside, neighbour, after);
    failed += !(before > 98 && at_once < 50 && near(beside, 30, 1.5) && near(neighbour, 70, 1.5) && after > 98);
    /* The control: who may not borrow has its percent all the time. */
    tenants_are(2, (tenant[]){QUEUED(30, 100 * US), {.percent = 70, .kernel_ns = 100 * US, .begins_ns = 3 * SECOND}});
    simulate(4, true, NULL);
    printf("without leave to borrow: alone %.1f\n", between(0, 1000, 3000));
    failed += !near(between(0, 1000, 3000), 30, 0.5);
}

int main(int words, char **word)
{
    const char *what = words > 1 ? word[1] : "";
    if (strcmp(what, "shares") == 0)
        shares();
    else if (strcmp(what, "bound") == 0)
        bound();
    else if (strcmp(what, "hostile") == 0)
        hostile();
    else if (strcmp(what, "deaths") == 0)
        deaths();
    else if (strcmp(what, "idle") == 0)
        idle();
    else
        return 2;
    return failed != 0;
}
