/*
 * A card that its power holds back: the busier this process has kept it of late, the longer kernels take. See fake.h.
 *
 * FAKE_CUDA_POWER: by how many percent longer where it has not rested at all. What counts is the last tenth of a second, about.
 */
#include <stdlib.h>

#include "fake.h"

static const double MEMORY_NS = 100e6;

int64_t fake_at_its_clock(int64_t ready_ns, int64_t duration_ns)
{
    static int percent = -1;
    static double warm; /* 0: rested, 1: it has not rested */
    static int64_t end_ns;
    if (percent < 0) {
        const char *text = getenv("FAKE_CUDA_POWER");
        percent = text == NULL ? 0 : atoi(text);
    }
    if (percent == 0)
        return duration_ns;
    const double rested_ns = ready_ns > end_ns ? (double)(ready_ns - end_ns) : 0;
    warm *= MEMORY_NS / (MEMORY_NS + rested_ns);
    const double longer_ns = (double)duration_ns * (1 + warm * percent / 100);
    warm += (1 - warm) * longer_ns / (MEMORY_NS + longer_ns);
    end_ns = (ready_ns > end_ns ? ready_ns : end_ns) + (int64_t)longer_ns;
    return (int64_t)longer_ns;
}
