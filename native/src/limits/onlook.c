/* See onlook.h. */
#include "limits/onlook.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "memory/ledger.h"
#include "limits/policy.h"
#include "prim/prim.h"

enum { LOOK_EVERY_NS = 500 * 1000 * 1000 }; /* a monitor that runs for days hears of a change as soon as others do */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of this */
static hami_policy policy;
static hami_ledger *ledger; /* NULL: nobody has started CUDA here yet, or it cannot be read */
static int64_t looked_ns;
static bool usable;

static void in_child(void)
{
    pthread_mutex_init(&lock, NULL); /* another thread of the parent may have had it */
}

/* Under the lock. What was read before stands where it cannot be read now. */
static void look(void)
{
    static hami_policy fresh;
    char why[200];
    const int64_t now = hami_now_ns();
    if (looked_ns != 0 && now - looked_ns < LOOK_EVERY_NS)
        return;
    if (looked_ns == 0)
        pthread_atfork(NULL, NULL, in_child);
    looked_ns = now;
    if (hami_policy_load(&fresh, why, sizeof why)) {
        policy = fresh;
        usable = !policy.off;
    } else {
        policy.from_file |= fresh.from_file; /* of an unreadable slice nothing is known but that it is one */
    }
    if (usable && ledger == NULL && access(policy.ledger, R_OK | W_OK) == 0)
        hami_ledger_map(policy.ledger, &ledger);
}

/* What the policy says of the card; by hand the first entry, since NVML's order is not CUDA's. */
static int64_t limit_of(const char *uuid)
{
    if (!policy.from_file)
        return policy.cards[0].limit_bytes;
    for (int i = 0; i < policy.card_count; i++) {
        if (strcmp(policy.cards[i].uuid, uuid) == 0)
            return policy.cards[i].limit_bytes;
    }
    return 0; /* a card not ours */
}

/* Without a posted policy the ledger has the latest word: the broker's, to whoever started CUDA here last. */
static int64_t limit_now(const char *uuid, int card)
{
    if (policy.posted || card < 0 || ledger->cards[card].limit <= 0)
        return limit_of(uuid);
    return ledger->cards[card].limit;
}

bool hami_onlook(const char *uuid, int64_t *limit, int64_t *used)
{
    pthread_mutex_lock(&lock);
    look();
    const bool limits = usable;
    const int card = !limits || ledger == NULL ? -1 : hami_ledger_find(ledger, uuid);
    if (card >= 0)
        hami_ledger_reap(ledger);
    if (limits) {
        const int64_t held = card < 0 ? 0 : hami_ledger_held(ledger, card);
        *limit = limit_now(uuid, card);
        *used = held < 0 ? 0 : held < *limit ? held : *limit;
    }
    pthread_mutex_unlock(&lock);
    return limits && *limit != HAMI_UNLIMITED;
}

bool hami_onlook_hides(void)
{
    pthread_mutex_lock(&lock);
    look();
    const bool hides = policy.from_file;
    pthread_mutex_unlock(&lock);
    return hides;
}

bool hami_onlook_has(int pid)
{
    pthread_mutex_lock(&lock);
    const bool has = ledger != NULL && hami_ledger_has(ledger, pid);
    pthread_mutex_unlock(&lock);
    return has;
}
