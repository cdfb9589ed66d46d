/*
 * How busy processes keep a card: as described, and, for programs on the simulated CUDA driver, as it ran them.
 *
 * A driver samples by itself; here it is done when somebody asks. A sample covers the time since the one before it, so a
 * process has its first one a period after it was first asked about.
 */
#include <time.h>

#include "hami/sim_live.h"
#include "live.h"
#include "rack.h"

enum { PERIOD_NS = 1000000000 / 6, US = 1000 };

struct sampled {
    unsigned int pid;
    int64_t at_ns, ran_ns; /* at its latest sample */
    unsigned long long at_us; /* the same of the wall clock; 0: it has none yet */
    unsigned int percent;
};

static struct sampled latest[MAX_CARDS][SIM_LIVE_PROCESSES]; /* under the rack's lock */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sample(struct sampled *s, const struct live_process *process)
{
    const int64_t now = clock_ns(CLOCK_MONOTONIC), ran = process->ran_ns;
    if (s->at_ns == 0 || s->pid != process->pid) {
        *s = (struct sampled){.pid = process->pid, .at_ns = now, .ran_ns = ran};
    } else if (now - s->at_ns >= PERIOD_NS) {
        const int64_t percent = ((ran - s->ran_ns) * 100 + (now - s->at_ns) / 2) / (now - s->at_ns);
        *s = (struct sampled){.pid = process->pid,
                              .at_ns = now,
                              .ran_ns = ran,
                              .at_us = (unsigned long long)clock_ns(CLOCK_REALTIME) / US,
                              .percent = percent < 0 ? 0 : percent > 100 ? 100 : (unsigned int)percent};
    }
}

/* Programs that run now, each with a sample of its own. Returns how many were looked at. */
static unsigned int sample_live(unsigned int card, const struct sampled **out)
{
    struct live_process live[SIM_LIVE_PROCESSES];
    const unsigned int count = live_processes(card, live, SIM_LIVE_PROCESSES);
    for (unsigned int i = 0; i < count; i++) {
        struct sampled *s = &latest[card][live[i].slot];
        sample(s, &live[i]);
        out[i] = s;
    }
    return count;
}

unsigned int live_percent(unsigned int card)
{
    const struct sampled *samples[SIM_LIVE_PROCESSES];
    const unsigned int count = sample_live(card, samples);
    unsigned int sum = 0;
    for (unsigned int i = 0; i < count; i++)
        sum += samples[i]->percent;
    return sum > 100 ? 100 : sum;
}

/* ---- the query ---- */

struct answer {
    nvmlProcessUtilizationSample_t *samples; /* NULL: they are only counted */
    unsigned int size, found;
};

static void add(struct answer *to, nvmlProcessUtilizationSample_t one)
{
    if (to->samples != NULL && to->found < to->size)
        to->samples[to->found] = one;
    to->found++;
}

/* Of a described process this moment's. */
static void add_described(struct answer *to, const struct process *process, unsigned long long now)
{
    if (process->sm == 0 && process->mem == 0 && process->enc == 0 && process->dec == 0)
        return;
    add(to, (nvmlProcessUtilizationSample_t){.pid = process->pid,
                                             .timeStamp = now,
                                             .smUtil = process->sm,
                                             .memUtil = process->mem,
                                             .encUtil = process->enc,
                                             .decUtil = process->dec});
}

static void add_live(struct answer *to, unsigned int card, unsigned long long last_seen)
{
    const struct sampled *samples[SIM_LIVE_PROCESSES];
    const unsigned int count = sample_live(card, samples);
    for (unsigned int i = 0; i < count; i++) {
        if (samples[i]->pid != 0 && samples[i]->percent > 0 && samples[i]->at_us > last_seen)
            add(to, (nvmlProcessUtilizationSample_t){
                        .pid = samples[i]->pid, .timeStamp = samples[i]->at_us, .smUtil = samples[i]->percent});
    }
}

/* The latest sample newer than `last_seen` of each process that was not idle; none at all is NOT_FOUND. */
NVML_API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                                      unsigned int *count, unsigned long long last_seen)
{
    struct card *card = NULL;
    nvmlReturn_t result = enter_card(__func__, device, &card);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (mig_is_on(card))
        return leave(NVML_ERROR_NOT_SUPPORTED);
    const unsigned long long now = (unsigned long long)clock_ns(CLOCK_REALTIME) / US;
    struct answer answer = {.samples = samples, .size = *count};
    for (unsigned int i = 0; i < card->process_count && last_seen < now; i++)
        add_described(&answer, &card->processes[i], now);
    add_live(&answer, card->index, last_seen);
    if (answer.found == 0)
        result = NVML_ERROR_NOT_FOUND;
    else if (samples == NULL || answer.found > *count)
        result = NVML_ERROR_INSUFFICIENT_SIZE;
    *count = answer.found;
    return leave(result);
}
