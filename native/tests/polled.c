/*
 * Tenants that wait by asking again and again whether a kernel is through, on the simulated card of turns/sim.h: they take turns as those do that wait in a call
 * that blocks. (46.7 each of 50 and 50.) Who asks now and then between launches has what it has where nobody sees it ask, to the last nanosecond; and who asks
 * too seldom to see the end in time is not drawn into turns that it cannot fill.
 *
 *   polled CASE: prints a line for each pair, exits 1 when one is not as it should be
 */
#include <stdio.h>
#include <string.h>

#include "turns/sim.h"

enum { SECONDS = 5, US = 1000, MS = 1000000 };

static int failed;

static void run(tenant a, tenant b, bool unseen, double shares[2])
{
    a.unseen = b.unseen = unseen;
    tenants_are(2, (tenant[]){a, b});
    simulate(SECONDS, true, NULL);
    for (int i = 0; i < 2; i++)
        shares[i] = share(i, SECONDS);
}

static bool within(double got, double wanted, double slack)
{
    return got >= wanted - slack && got <= wanted + slack;
}

/* Each within 1.5 of its cap, together 98. */
static void shares(void)
{
    static const int64_t kernels_ns[] = {MS, 5 * MS, 20 * MS}, between_ns[] = {US, 10 * US};
    for (size_t k = 0; k < sizeof kernels_ns / sizeof kernels_ns[0]; k++) {
        for (size_t b = 0; b < sizeof between_ns / sizeof between_ns[0]; b++) {
            for (int way = 0; way < 3; way++) {
                const tenant one = {.percent = 50, .kernel_ns = kernels_ns[k], .sync = true, .polls_ns = between_ns[b]};
                const tenant other = {.percent = 50, .kernel_ns = way == 1 ? 100 * US : kernels_ns[k], .sync = way == 2};
                double got[2];
                run(one, way == 0 ? one : other, false, got);
                const bool ok = within(got[0], 50, 1.5) && within(got[1], 50, 1.5) && got[0] + got[1] >= 97.9;
                printf("%-4s %g ms, asked for each %g us, beside %s: %.1f and %.1f\n", ok ? "ok" : "NO", (double)kernels_ns[k] / MS,
                       (double)between_ns[b] / US, way == 0 ? "the same" : way == 1 ? "a full queue" : "one that blocks", got[0], got[1]);
                failed += !ok;
            }
        }
    }
}

/* However seldom it asks, whatever its cap, its host and the other, it has at least what it has where nobody sees it. */
static void seldom(void)
{
    static const int64_t kernels_ns[] = {200 * US, MS, 5 * MS, 20 * MS}, between_ns[] = {30 * US, 60 * US, 200 * US, MS, 3 * MS};
    for (size_t k = 0; k < sizeof kernels_ns / sizeof kernels_ns[0]; k++) {
        for (size_t b = 0; b < sizeof between_ns / sizeof between_ns[0]; b++) {
            for (int way = 0; way < 4; way++) {
                const tenant one = {.percent = 50, .kernel_ns = kernels_ns[k], .sync = true, .polls_ns = between_ns[b],
                                    .late_ns = 300 * US, .late_every = way & 1 ? 4 : 0};
                const tenant other = {.percent = 50, .kernel_ns = 100 * US};
                double seen[2], unseen[2];
                run(one, way & 2 ? other : one, false, seen);
                run(one, way & 2 ? other : one, true, unseen);
                const bool ok = seen[0] >= 0.96 * unseen[0] && seen[0] + seen[1] >= 0.98 * (unseen[0] + unseen[1]);
                printf("%-4s %g ms, asked for each %g us%s, beside %s: %.1f and %.1f, unseen %.1f and %.1f\n", ok ? "ok" : "NO",
                       (double)kernels_ns[k] / MS, (double)between_ns[b] / US, way & 1 ? ", late at times" : "", way & 2 ? "a full queue" : "the same",
                       seen[0], seen[1], unseen[0], unseen[1]);
                failed += !ok;
            }
        }
    }
}

/* A look after each launch, or after one of eight: whatever the answer, it goes on. */
static void glances(void)
{
    static const int64_t kernels_ns[] = {50 * US, 200 * US, MS, 5 * MS}, hosts_ns[] = {0, 10 * US, 200 * US, MS, 6 * MS};
    int pairs = 0;
    for (size_t k = 0; k < sizeof kernels_ns / sizeof kernels_ns[0]; k++) {
        for (size_t h = 0; h < sizeof hosts_ns / sizeof hosts_ns[0]; h++) {
            for (int way = 0; way < 8; way++) {
                const tenant one = {.percent = 30, .kernel_ns = kernels_ns[k], .host_ns = hosts_ns[h], .glances = way & 1 ? 1 : 8,
                                    .every = way & 2 ? 50 : 0, .ahead = way & 4 ? 2 : 0};
                double seen[2], unseen[2];
                run(one, (tenant){.percent = 70, .kernel_ns = 100 * US}, false, seen);
                run(one, (tenant){.percent = 70, .kernel_ns = 100 * US}, true, unseen);
                const bool ok = memcmp(seen, unseen, sizeof seen) == 0;
                pairs++;
                if (!ok)
                    printf("NO   %g ms and %g ms of its host's, way %d: %.3f and %.3f, unseen %.3f and %.3f\n", (double)kernels_ns[k] / MS,
                           (double)hosts_ns[h] / MS, way, seen[0], seen[1], unseen[0], unseen[1]);
                failed += !ok;
            }
        }
    }
    printf("%d pairs that look now and then\n", pairs);
}

int main(int words, char **word)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"shares", shares}, {"seldom", seldom}, {"glances", glances}};
    for (size_t i = 0; words > 1 && i < sizeof cases / sizeof cases[0]; i++) {
        if (strcmp(word[1], cases[i].name) == 0) {
            cases[i].run();
            return failed != 0;
        }
    }
    return 2;
}
