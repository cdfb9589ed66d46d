/*
 * Tenants taking turns: the library's own turns.c and budget.c on the simulated card of turns/sim.h, the same result each run.
 *
 *   turns CASE, one of those in `main`: prints a line for each program or pair, exits 1 when one is not as it should be
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "turns/sim.h"

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

enum { US = 1000, MS = 1000000 };

static void pair(const char *name, tenant a, tenant b, double wanted_a, double wanted_b, double least_sum)
{
    enum { SECONDS = 10 };
    tenants_are(2, (tenant[]){a, b});
    simulate(SECONDS, true, NULL);
    const double sum = share(0, SECONDS) + share(1, SECONDS);
    say(near(share(0, SECONDS), wanted_a, 1.5) && near(share(1, SECONDS), wanted_b, 1.5) && sum >= least_sum, name, SECONDS);
}

#define QUEUED(p, ns) ((tenant){.percent = (p), .kernel_ns = (ns)})
#define SYNCED(p, ns) ((tenant){.percent = (p), .kernel_ns = (ns), .sync = true})
#define LATE(p, ns, late, every) ((tenant){.percent = (p), .kernel_ns = (ns), .sync = true, .late_ns = (late), .late_every = (every)})
#define BOUND(p, ns, host) ((tenant){.percent = (p), .kernel_ns = (ns), .host_ns = (host)})

static void shares(void)
{
    static const int caps[][2] = {{10, 90}, {30, 70}, {50, 50}, {70, 30}, {90, 10}};
    static const struct {
        const char *name;
        tenant a, b;
    } works[] = {
        {"10 us queued", QUEUED(0, 10 * US), QUEUED(0, 10 * US)},
        {"0.1 ms queued", QUEUED(0, 100 * US), QUEUED(0, 100 * US)},
        {"1 ms queued", QUEUED(0, MS), QUEUED(0, MS)},
        {"10 us and 1 ms queued", QUEUED(0, 10 * US), QUEUED(0, MS)},
        {"0.1 ms and 5 ms queued", QUEUED(0, 100 * US), QUEUED(0, 5 * MS)},
        {"5 ms waited for each", SYNCED(0, 5 * MS), SYNCED(0, 5 * MS)},
        {"5 ms waited for each, 0.1 ms queued", SYNCED(0, 5 * MS), QUEUED(0, 100 * US)},
    };
    for (size_t w = 0; w < sizeof works / sizeof works[0]; w++) {
        for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
            char name[64];
            tenant first = works[w].a, second = works[w].b;
            first.percent = caps[c][0], second.percent = caps[c][1];
            snprintf(name, sizeof name, "%d/%d, %s", caps[c][0], caps[c][1], works[w].name);
            pair(name, first, second, caps[c][0], caps[c][1], 98);
        }
    }
    pair("30/70, the same, its host 0.9 ms late after one in three", LATE(30, 5 * MS, 900 * US, 3), QUEUED(70, 100 * US), 30, 70, 98);
    pair("30/70, the same, 40 ms late after one in 200", LATE(30, 5 * MS, 40 * MS, 200), QUEUED(70, 100 * US), 30, 70, 98);
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

/*
 * A wait that goes on though all is through, as where a stream waits for a function of its host's: to take that for work would keep the turn, and the card idle in
 * it (20 and 20 of 21 and 50). Neither of the two has less than without turns, but for the first moments of each try.
 */
static void stalls(void)
{
    static const int64_t kernels_ns[] = {100 * US, MS, 3 * MS, 10 * MS, 20 * MS}, stalls_ns[] = {100 * US, MS, 9 * MS, 40 * MS};
    for (size_t k = 0; k < sizeof kernels_ns / sizeof kernels_ns[0]; k++) {
        for (size_t i = 0; i < sizeof stalls_ns / sizeof stalls_ns[0]; i++) {
            const tenant both[] = {{.percent = 50, .kernel_ns = kernels_ns[k], .sync = true, .stall_ns = stalls_ns[i]}, QUEUED(50, 100 * US)};
            tenants_are(2, both);
            simulate(20, false, NULL);
            const double own = share(0, 20), full = share(1, 20);
            tenants_are(2, both);
            simulate(20, true, NULL);
            const bool ok = share(0, 20) >= 0.97 * own && share(1, 20) >= 0.97 * full;
            printf("%-4s %g ms and %g ms more of each wait: %.1f and %.1f, without turns %.1f and %.1f\n", ok ? "ok" : "NO", (double)kernels_ns[k] / MS,
                   (double)stalls_ns[i] / MS, share(0, 20), share(1, 20), own, full);
            failed += !ok;
        }
    }
}

/*
 * Is the turn of the first, whose queue is through, kept by calls of `call_ns` that wait for nothing, made one after the other for 10 ms? The second asks
 * `between` them, or at the end of each.
 */
static bool kept_by(int64_t call_ns, bool beside, bool between)
{
    memset(&page, 0, sizeof page);
    now = BOOT;
    const uint64_t word = hami_page_word(0, 0);
    hami_pacer p = {.page = &page, .word = word, .beside = beside, .full_since_ns = now - SECOND, .queue_end_ns = now, .weight = 50};
    hami_pacer other = {.page = &page, .member = 1, .tenant = 1, .weight = 50, .full_since_ns = now - SECOND};
    hami_purse purse = {0};
    _Atomic int64_t paid = 0;
    atomic_store(&page.holder, word);
    atomic_store(&page.until_ns, now);
    while (now < BOOT + 10 * MS && other.word == 0) {
        int64_t until = 0;
        hami_turn_waits(&p, now);
        now += call_ns;
        if (between)
            hami_turn_waited(&p, now - call_ns, now);
        atomic_store(&page.full_ns[0], now);
        other.busy = true;
        hami_pace(&other, &paid, &purse, 100 * US, 50, now, &until);
        if (!between)
            hami_turn_waited(&p, now - call_ns, now);
        now += US;
    }
    return other.word == 0;
}

/* Who only asks again and again whether all is through, or reads a word of the card's memory, keeps no turn by it. */
static void polls(void)
{
    static const int64_t calls_ns[] = {US, 10 * US, 19 * US, 20 * US, 30 * US, 200 * US};
    for (size_t c = 0; c < sizeof calls_ns / sizeof calls_ns[0]; c++) {
        for (int way = 0; way < 4; way++) {
            const bool beside = way & 1, between = way & 2, kept = kept_by(calls_ns[c], beside, between);
            printf("%-4s calls of %g us, turn %s, asked for %s: %s\n", kept ? "NO" : "ok", (double)calls_ns[c] / US, beside ? "taken" : "handed on",
                   between ? "between them" : "within", kept ? "kept" : "lost");
            failed += kept;
        }
    }
}

/*
 * Where each launch is bought by itself, who finds that another thread has bought for his, and then has a debt of the past to pay, buys something all the
 * same: he would ask for nothing again and again.
 */
static void nothing(void)
{
    hami_pacer p = {.page = &page, .weight = 50, .closely = true, .left_ns = HAMI_TURN_NS};
    hami_purse purse = {0};
    _Atomic int64_t paid = 0;
    int64_t until = 0;
    memset(&page, 0, sizeof page);
    now = BOOT;
    p.word = hami_page_word(0, 0);
    atomic_store(&page.holder, p.word);
    atomic_store(&page.full_ns[0], now);
    atomic_store(&page.full_ns[1], now);
    const bool ok = hami_pace(&p, &paid, &purse, 0, 50, now, &until) == HAMI_GO && p.bought_ns > 0;
    printf("%-4s a need of nothing: %lld ns bought\n", ok ? "ok" : "NO", (long long)p.bought_ns);
    failed += !ok;
}

/*
 * A host that waits for a burst of launches and pauses then has beside a full queue what it has without turns, but for the moments of each try, whichever of
 * its launches are bought: 20 of 50 us with half a millisecond after them had 32.5 of 46.7, as each pause ended with a launch that had been bought before it.
 */
static void pauses(void)
{
    static const int bursts[] = {5, 20, 50}, pauses_us[] = {200, 500, 1000};
    for (size_t b = 0; b < sizeof bursts / sizeof bursts[0]; b++) {
        for (size_t p = 0; p < sizeof pauses_us / sizeof pauses_us[0]; p++) {
            for (int us = 20; us <= 200; us += us == 20 ? 30 : 150) {
                const tenant both[] = {{.percent = 50, .kernel_ns = us * US, .every = bursts[b], .rest_ns = pauses_us[p] * US}, QUEUED(50, MS)};
                tenants_are(2, both);
                simulate(10, false, NULL);
                const double free = share(0, 10);
                tenants_are(2, both);
                simulate(10, true, NULL);
                const bool ok = share(0, 10) >= 0.96 * free;
                printf("%-4s %d of %d us and %g ms: %.1f, without turns %.1f\n", ok ? "ok" : "NO", bursts[b], us, pauses_us[p] / 1e3, share(0, 10), free);
                failed += !ok;
            }
        }
    }
}

static double between(int i, int from_ms, int to_ms);

/*
 * Launches of one key and two lengths, whose prices are learned: each its percent, from the fourth second on, whenever the one came. Outside of turns all were
 * charged the shorter, as others' slices look like the longer, so nobody had to wait and there were no turns: 47 for 10 beside its like of 90.
 */
static void lengths(void)
{
    static const int64_t both_ns[][LENGTHS] = {{MS, 20 * MS}, {2 * MS, 9 * MS}};
    for (size_t l = 0; l < sizeof both_ns / sizeof both_ns[0]; l++) {
        for (int percent = 10; percent <= 50; percent += 20) {
            for (int way = 0; way < 8; way++) {
                tenant a = {.percent = percent, .learned = true, .shuffled = way % 2 == 1, .begins_ns = way & 2 ? 700 * MS : 0};
                tenant b = {.percent = 100 - percent, .learned = true, .kernel_ns = MS};
                memcpy(a.lengths_ns, both_ns[l], sizeof both_ns[l]);
                if (way & 4) {
                    b.shuffled = a.shuffled;
                    memcpy(b.lengths_ns, both_ns[l], sizeof both_ns[l]);
                }
                tenants_are(2, (tenant[]){a, b});
                simulate(17, true, NULL);
                const double first = between(0, 4000, 17000), second = between(1, 4000, 17000);
                const double over = a.shuffled ? 3.5 : 1.5; /* a dozen long ones in a row are a turn of a quarter of a second */
                const bool ok = first <= percent + over && second <= 100 - percent + over && first + second >= (a.shuffled ? 90 : 98);
                printf("%-4s %d/%d, %g and %g ms%s beside %s%s: %.1f and %.1f\n", ok ? "ok" : "NO", percent, 100 - percent, (double)both_ns[l][0] / MS,
                       (double)both_ns[l][1] / MS, a.shuffled ? " in no order" : "", way & 4 ? "the same" : "1 ms", way & 2 ? ", later" : "", first, second);
                failed += !ok;
            }
        }
    }
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

static int64_t heard_at; /* when the first tenant could have seen that the second buys; 0: not yet */

static void listen_for_a_newcomer(void)
{
    if (heard_at == 0 && hami_turn_others_buy(&tenants[0].pacer, now))
        heard_at = now;
}

/* Beside a neighbour that wants the card from the 3rd to the 6th second: all of it while it does not, the percent while it does. */
static void idle(void)
{
    tenants_are(2, (tenant[]){{.percent = 30, .kernel_ns = 100 * US, .borrows = true},
                              {.percent = 70, .kernel_ns = 100 * US, .begins_ns = 3 * SECOND, .ends_ns = 6 * SECOND}});
    simulate(9, true, listen_for_a_newcomer);
    const double heard_ms = (double)(heard_at - BOOT - 3 * SECOND) / MS;
    printf("the neighbour is heard of after %g ms\n", heard_ms);
    failed += !(heard_ms > 0 && heard_ms < 3);
    const double before = between(0, 1000, 3000), at_once = between(0, 3020, 3120), beside = between(0, 3200, 5900);
    const double neighbour = between(1, 3200, 5900), after = between(0, 6200, 9000);
    printf("alone %.1f, at once %.1f, beside %.1f, the neighbour %.1f, alone again %.1f\n", before, at_once, beside, neighbour, after);
    failed += !(before > 98 && near(at_once, 30, 4) && near(beside, 30, 1.5) && near(neighbour, 70, 1.5) && after > 98);
    /* So it is between the requests of one that is at work for 2 ms of 30: that one has what it had, 5.9 of 6.2, and is left as much. */
    tenants_are(2, (tenant[]){{.percent = 50, .kernel_ns = 100 * US, .borrows = true},
                              {.percent = 50, .kernel_ns = 100 * US, .borrows = true, .every = 20, .rest_ns = 30 * MS}});
    simulate(9, true, NULL);
    printf("between requests: %.1f, the requests %.1f\n", share(0, 9), share(1, 9));
    failed += !(share(0, 9) > 85 && share(1, 9) > 5.7);
    /* Two of several want it: they divide it by their percents, and so do the three once there is another. */
    tenants_are(3, (tenant[]){{.percent = 10, .kernel_ns = 100 * US, .borrows = true},
                              {.percent = 30, .kernel_ns = MS, .borrows = true},
                              {.percent = 40, .kernel_ns = 10 * US, .borrows = true, .begins_ns = 4 * SECOND}});
    simulate(8, true, NULL);
    printf("10 and 30 of 100: %.1f and %.1f; with 40: %.1f, %.1f and %.1f\n", between(0, 1000, 4000), between(1, 1000, 4000), between(0, 4500, 8500),
           between(1, 4500, 8500), between(2, 4500, 8500));
    failed += !(near(between(0, 1000, 4000), 25, 1.5) && near(between(1, 1000, 4000), 75, 1.5) && near(between(0, 4500, 8500), 12.5, 1.5) &&
                near(between(1, 4500, 8500), 37.5, 1.5) && near(between(2, 4500, 8500), 50, 1.5));
    /* One that is held to its percent leaves the rest of it, and is left that. */
    tenants_are(2, (tenant[]){{.percent = 50, .kernel_ns = 100 * US, .borrows = true}, QUEUED(20, MS)});
    simulate(4, true, NULL);
    printf("50 that may borrow, 20 that may not: %.1f and %.1f\n", share(0, 4), share(1, 4));
    failed += !(near(share(0, 4), 100.0 * 50 / 70, 1.5) && near(share(1, 4), 20, 1));
    /* The control: who may not borrow has its percent all the time. */
    tenants_are(2, (tenant[]){QUEUED(30, 100 * US), {.percent = 70, .kernel_ns = 100 * US, .begins_ns = 3 * SECOND}});
    simulate(4, true, NULL);
    printf("without leave to borrow: alone %.1f\n", between(0, 1000, 3000));
    failed += !near(between(0, 1000, 3000), 30, 0.5);
}

/*
 * Who was taken out of turns, its host having been slow for some seconds, takes them again once it is not. It cannot be seen by what it has queued, as
 * reckoned from prices: beside another's slices that takes longer, and is through, by reckoning, as soon as it is launched.
 */
static void again(void)
{
    for (int ahead = 0; ahead <= 320; ahead += 80) {
        const tenant slow = {.percent = 70, .kernel_ns = 100 * US, .ahead = ahead, .slow_ns = 150 * US, .slow_until_ns = 3 * SECOND};
        tenants_are(2, (tenant[]){{.percent = 30, .kernel_ns = 100 * US, .ahead = ahead}, slow});
        simulate(19, true, NULL);
        const double first = between(0, 12000, 19000), second = between(1, 12000, 19000), out = between(1, 1000, 3000);
        printf("%s %d ahead: %.1f and %.1f, the second %.1f while slow, %u times out of turns\n", near(first, 30, 1.5) && near(second, 70, 1.5) ? "ok" : "NO",
               ahead, first, second, out, tenants[1].pacer.had.bound);
        failed += !(near(first, 30, 1.5) && near(second, 70, 1.5) && tenants[1].pacer.had.bound > 0);
    }
}

int main(int words, char **word)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"shares", shares}, {"stalls", stalls}, {"polls", polls}, {"nothing", nothing}, {"bound", bound}, {"pauses", pauses},
                 {"lengths", lengths}, {"hostile", hostile}, {"deaths", deaths}, {"idle", idle}, {"again", again}};
    for (size_t i = 0; words > 1 && i < sizeof cases / sizeof cases[0]; i++) {
        if (strcmp(word[1], cases[i].name) == 0) {
            cases[i].run();
            return failed != 0;
        }
    }
    return 2;
}
