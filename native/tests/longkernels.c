/*
 * Two tenants with kernels longer than a turn, on the simulated card of turns/sim.h: they take turns like others, one kernel each, and use the whole card.
 * Who runs a kernel of 50 ms asks for nothing meanwhile, and was not taken for one with a full queue after that: they overlapped, at 67 to 97 of the card.
 */
#include <stdio.h>

#include "turns/sim.h"

enum { SECONDS = 19 };

int main(void)
{
    static const int caps[][2] = {{10, 90}, {30, 70}, {50, 50}, {90, 10}};
    static const struct {
        const char *name;
        tenant a, b;
    } works[] = {
        {"20 ms", {.kernel_ns = 20 * MILLI}, {.kernel_ns = 20 * MILLI}},
        {"30 ms", {.kernel_ns = 30 * MILLI}, {.kernel_ns = 30 * MILLI}},
        {"50 ms", {.kernel_ns = 50 * MILLI}, {.kernel_ns = 50 * MILLI}},
        {"50 ms beside 0.1 ms", {.kernel_ns = 50 * MILLI}, {.kernel_ns = MILLI / 10}},
        {"20 ms waited for each", {.kernel_ns = 20 * MILLI, .sync = true}, {.kernel_ns = 20 * MILLI, .sync = true}},
        {"50 ms waited for each beside 0.1 ms", {.kernel_ns = 50 * MILLI, .sync = true}, {.kernel_ns = MILLI / 10}},
    };
    bool failed = false;
    for (size_t w = 0; w < sizeof works / sizeof works[0]; w++) {
        for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
            for (int learned = 0; learned <= 1; learned++) {
                tenant a = works[w].a, b = works[w].b;
                a.percent = caps[c][0], b.percent = caps[c][1];
                a.learned = b.learned = learned;
                tenants_are(2, (tenant[]){a, b});
                simulate(SECONDS, true, NULL);
                const double first = share(0, SECONDS), second = share(1, SECONDS);
                const bool ok = first >= caps[c][0] - 1.5 && first <= caps[c][0] + 1.5 && second >= caps[c][1] - 1.5 && second <= caps[c][1] + 1.5 &&
                                first + second >= 98;
                printf("%-4s %d/%d, %s%s: %.1f and %.1f\n", ok ? "ok" : "NO", caps[c][0], caps[c][1], works[w].name, learned ? ", prices learned" : "", first,
                       second);
                failed |= !ok;
            }
        }
    }
    return failed;
}
