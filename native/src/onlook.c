/* See onlook.h. */
#include "onlook.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "ledger.h"
#include "policy.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static hami_policy policy;
static hami_ledger *ledger; /* NULL: nobody has started CUDA here yet, or it cannot be read */
static bool usable;

static void look(void)
{
    char why[200];
    usable = hami_policy_load(&policy, why, sizeof why) && !policy.off;
    if (usable && access(policy.ledger, R_OK | W_OK) == 0)
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

bool hami_onlook(const char *uuid, int64_t *limit, int64_t *used)
{
    pthread_once(&once, look);
    if (!usable)
        return false;
    const int card = ledger == NULL ? -1 : hami_ledger_find(ledger, uuid);
    if (card >= 0)
        hami_ledger_reap(ledger);
    /* The ledger has the latest word: the broker's, where a limit has changed since the container's start. */
    *limit = card < 0 || ledger->cards[card].limit <= 0 ? limit_of(uuid) : ledger->cards[card].limit;
    const int64_t held = card < 0 ? 0 : hami_ledger_held(ledger, card);
    *used = held < 0 ? 0 : held < *limit ? held : *limit;
    return *limit != HAMI_UNLIMITED;
}

bool hami_onlook_hides(void)
{
    pthread_once(&once, look);
    return usable && policy.from_file;
}

bool hami_onlook_has(int pid)
{
    return ledger != NULL && hami_ledger_has(ledger, pid);
}
