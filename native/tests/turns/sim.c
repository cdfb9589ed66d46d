/* See sim.h. */
#include "sim.h"

#include <string.h>

enum {
    SLICE_NS = 1000 * 1000,
    SWITCH_NS = 70 * 1000,
    WAKE_NS = 50 * 1000,
    POLL_NS = 10 * 1000,
    ASK_AGAIN_NS = 20 * 1000 * 1000, /* as buy.c: so soon is a changed limit felt */
    LOOK_NS = 20 * 1000,
    LAUNCH_NS = 4 * 1000,
    DEPTH = 1024
};

tenant tenants[MOST];
int count;
hami_turns_page page;
int64_t now;
static int64_t gpu_ns, slice_left, switch_left;
static int owner;
static uint64_t dice_state;

uint64_t dice(void)
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
        if (t->learned)
            launch_runs(owner, gpu_ns);
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
        if (t->head_left_ns > 0)
            continue;
        const int64_t next_ns = t->learned ? launch_ends(owner, gpu_ns) : t->kernel_ns;
        if (--t->queued > 0)
            t->head_left_ns = next_ns;
    }
}

static void push(tenant *t)
{
    const int64_t length_ns = t->learned ? launch_length((int)(t - tenants), t->price_ns) : t->kernel_ns;
    if (t->queued++ == 0)
        t->head_left_ns = length_ns;
}

/* ---- a thread ---- */

/* False: it is not known yet. */
static bool price(tenant *t)
{
    t->price_ns = t->priced == 0 ? t->kernel_ns : t->kernel_ns * t->priced / 100;
    return !t->learned || learned_price((int)(t - tenants), &t->price_ns);
}

static void pace(tenant *t)
{
    int64_t until = 0;
    if (t->learned)
        learn((int)(t - tenants));
    const bool looks = hami_turn_looks(&t->pacer, now);
    t->pacer.dry = looks && t->queued == 0;
    t->pacer.busy = looks && t->queued > 0;
    const hami_step step = hami_pace(&t->pacer, &t->paid, &t->purse, t->need, t->percent, now, &until);
    t->waits_for_turn = false;
    if (step == HAMI_GO) {
        t->at = ROOM;
        t->wake_ns = now;
        return;
    }
    t->at = step == HAMI_DRAIN ? DRAIN : PACE;
    t->waits_for_turn = step == HAMI_WAIT;
    if (step == HAMI_WAIT && until > now + ASK_AGAIN_NS)
        until = now + ASK_AGAIN_NS;
    t->wake_ns = step == HAMI_DRAIN ? now + POLL_NS : (until > now ? until : now) + 5000;
}

static void ask(tenant *t, bool through)
{
    const int64_t since = t->unseen ? 0 : hami_polled(&t->polls, t, through, atomic_load(&t->purse.known_ns), now);
    if (since != 0)
        hami_turn_waited(&t->pacer, since, t->polls.last_ns);
}

static void step_thread(tenant *t)
{
    switch (t->at) {
    case LAUNCH:
        if (t->ends_ns != 0 && now > BOOT + t->ends_ns) {
            t->wake_ns = NEVER;
            break;
        }
        if (t->glances > 0 && t->launched % t->glances == 0)
            ask(t, t->queued == 0);
        t->waiting_since = now;
        if (!price(t)) {
            t->wake_ns = now + LOOK_NS;
            break;
        }
        t->need = hami_purse_spend(&t->purse, t->price_ns);
        if (t->need == 0) {
            t->at = ROOM;
            break;
        }
        const int64_t debt = -atomic_load(&t->purse.credit_ns);
        t->need = t->need < debt ? debt : t->need;
        t->pacer.spare_ns = t->price_ns > t->need ? t->price_ns - t->need : 0;
        t->pacer.debt_ns = t->learned && t->need > t->price_ns ? t->need - t->price_ns : 0;
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
        if (t->queued >= (t->ahead > 0 ? t->ahead : DEPTH)) {
            t->wake_ns = now + 20000;
            break;
        }
        if (now - t->waiting_since > t->wait_most_ns)
            t->wait_most_ns = now - t->waiting_since;
        push(t);
        t->launched++;
        t->at = t->sync || (t->every > 0 && t->launched % t->every == 0) ? SYNC : LAUNCH;
        t->wake_ns = now + LAUNCH_NS + t->host_ns + (now < BOOT + t->slow_until_ns ? t->slow_ns : 0);
        break;
    case SYNC:
        if (t->waits_since == 0) {
            t->waits_since = t->through_since = now;
            if (t->polls_ns == 0)
                hami_turn_waits(&t->pacer, now);
        }
        t->wake_ns = now + (t->polls_ns > 0 ? t->polls_ns : POLL_NS);
        t->through_since = t->queued > 0 ? now : t->through_since;
        if (t->queued == 0 && now - t->through_since >= t->stall_ns) {
            t->at = LAUNCH;
            if (t->polls_ns == 0)
                hami_turn_waited(&t->pacer, t->waits_since, now);
            else
                ask(t, true);
            t->waits_since = 0;
            t->wake_ns += t->rest_ns;
            t->wake_ns += t->late_every > 0 && t->launched % t->late_every == 0 ? t->late_ns : 0;
        } else if (t->polls_ns > 0) {
            ask(t, false);
        }
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

void simulate(int seconds, bool turns, meddler meddle)
{
    memset(&page, 0, sizeof page);
    now = gpu_ns = BOOT;
    slice_left = switch_left = 0;
    owner = 0;
    dice_state = 88172645463325252u;
    learn_nothing();
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

void tenants_are(int number, const tenant *list)
{
    count = number;
    memset(tenants, 0, sizeof tenants);
    for (int i = 0; i < number; i++)
        tenants[i] = list[i];
}

double share(int i, int seconds)
{
    return 100.0 * (double)tenants[i].done_ns / (double)(seconds * SECOND);
}
