/*
 * A door into the library for measurements: `broker.py` compiles it into the library that its programs run under; it is in none that is shipped.
 *
 * What the library costs, and what a limit does, is a part of what the host scatters by within a second. So a program changes its own limit between
 * two of its steps, as a word of the broker would within a second or two, and is compared with itself of a moment before. No other thread of the program may
 * launch meanwhile.
 */
#include <string.h>
#include <sys/mman.h>

#include "hooks.h"
#include "intercept/intercept.h"
#include "pay/budget.h"
#include "price/bulk.h"
#include "price/sample.h"
#include "prim/prim.h"
#include "process/log.h"
#include "process/state.h"

#define DOOR __attribute__((visibility("default")))
#define HOUR_NS ((int64_t)3600 * 1000 * 1000 * 1000)

enum { PERCENTS = 101 };

/*
 * How far behind now the time is up to which a card's launches are paid for, by the limit that it was left with. Without this each slice under a limit
 * would begin with 20 ms to catch up, which the time without one left unused: 83.6 percent of 200 ms at 80.
 */
static int64_t behind_ns[HAMI_MAX_CARDS][PERCENTS];

static int64_t *behind_of(const hami_card *card, int percent)
{
    return &behind_ns[card - hami_state.cards][percent < 1 ? 1 : percent < PERCENTS ? percent : PERCENTS - 1];
}

/* From one limit to another, each of which goes on where it was left; one that has not been begins with nothing to catch up. */
static void go_on(hami_card *card, int from, int to, int64_t now)
{
    _Atomic int64_t *paid = &hami_state.ledger->cards[card->ledger_index].paid_until_ns;
    if (from < 100)
        *behind_of(card, from) = now - hami_budget_paid(paid, &card->purse);
    if (to < 100) {
        atomic_store(&card->purse.known_ns, now - *behind_of(card, to));
        atomic_store(paid, now - *behind_of(card, to));
    }
}

/*
 * Percent of each card from now on; 100: no limit of time. What is measured twice a second, or in a part of the time, is so in the time under a limit,
 * and what may be caught up was left unused under that very limit: the rest did not pass.
 */
DOOR void hami_inside_percent(int percent)
{
    static int64_t left_ns;
    const int64_t now = hami_now_ns();
    if (percent < 100 && left_ns != 0) {
        hami_sample_later(now - left_ns);
        hami_bulk_later(now - left_ns);
    }
    left_ns = percent < 100 ? 0 : left_ns == 0 ? now : left_ns;
    for (int i = 0; i < hami_state.card_count; i++) {
        hami_card *card = &hami_state.cards[i];
        go_on(card, atomic_load(&card->percent), percent, now);
        atomic_store(&card->percent, percent);
        hami_card_pages(card, card->pacer.page, card->pacer.member, card->pacer.tenant, percent);
    }
    hami_throttle_update();
}

/*
 * True: from now on no launch of a known price is measured, nor any in bulk, but in runs of a key with several lengths: what that makes of the time is
 * what such measurements cost. False: as before that.
 */
DOOR void hami_inside_rest(bool rests)
{
    static bool resting;
    if (rests == resting)
        return;
    hami_sample_later(rests ? HOUR_NS : -HOUR_NS);
    hami_bulk_later(rests ? HOUR_NS : -HOUR_NS);
    resting = rests;
}

/* True: from now on all that is launched has been bought, so nothing is looked up in the budget or on the page of turns. False: as before that. */
DOOR void hami_inside_rich(bool rich)
{
    static int64_t kept_ns[HAMI_MAX_CARDS];
    static bool was;
    for (int i = 0; rich != was && i < hami_state.card_count; i++) {
        _Atomic int64_t *credit = &hami_state.cards[i].purse.credit_ns;
        if (rich)
            kept_ns[i] = atomic_exchange(credit, HOUR_NS);
        else
            atomic_store(credit, kept_ns[i]);
    }
    was = rich;
}

/* What is written to stderr from now on: a log level of the library's (process/log.h). */
DOOR void hami_inside_log(int level)
{
    hami_log_level = level;
}

/* GPU time that this process has paid for so far, ns. */
DOOR int64_t hami_inside_paid_ns(void)
{
    int64_t sum = 0;
    for (int i = 0; i < hami_state.card_count; i++)
        sum += atomic_load(&hami_state.cards[i].busy_ns);
    return sum;
}

#if defined(__x86_64__)

/* jmp *0(%rip), and the address: hooks are 16 bytes apart at least. */
enum { JUMP_BYTES = 14, MOST_HOOKS = 512, PAGE = 4096 };

static struct {
    unsigned char *at, was[JUMP_BYTES], jump[JUMP_BYTES];
} hooks[MOST_HOOKS];
static int hook_count;

static bool open_page(unsigned char *at)
{
    const uintptr_t first = (uintptr_t)at & ~(uintptr_t)(PAGE - 1);
    return mprotect((void *)first, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0;
}

static bool note_hook(const hami_name *name)
{
    void *behind = NULL;
    if (name->hook == NULL || name->slot == HAMI_NO_SLOT || strncmp(name->name, "cu", 2) != 0 || strncmp(name->name, "cuGet", 5) == 0)
        return true; /* lookups too: what is found past the library would stay past it */
    memcpy(&behind, (const char *)&hami_behind + name->slot, sizeof behind);
    if (behind == NULL)
        return true;
    if (hook_count == MOST_HOOKS || !open_page(name->hook))
        return false;
    memcpy(hooks[hook_count].was, name->hook, JUMP_BYTES);
    memcpy(hooks[hook_count].jump, (const unsigned char[]){0xff, 0x25, 0, 0, 0, 0}, 6);
    memcpy(hooks[hook_count].jump + 6, &behind, sizeof behind);
    hooks[hook_count++].at = name->hook;
    return true;
}

/*
 * Past the library, or through it again: every hook becomes one jump to the driver's own function. That is as near as a program that has been
 * given the hooks' addresses can come to being without it. Returns how many they are, -1: it cannot be done.
 */
DOOR int hami_inside_bypass(bool past)
{
    for (unsigned int i = 0; hook_count == 0 && i < hami_name_count; i++) {
        if (!note_hook(&hami_names[i]))
            return -1;
    }
    for (int i = 0; i < hook_count; i++)
        memcpy(hooks[i].at, past ? hooks[i].jump : hooks[i].was, JUMP_BYTES);
    return hook_count;
}

#else

DOOR int hami_inside_bypass(bool past)
{
    (void)past;
    return -1;
}

#endif
