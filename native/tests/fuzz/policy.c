/* Fuzz target: the policy file, and the variables of hand use. What is accepted is within its bounds, whatever was in the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check(const hami_policy *p)
{
    must(p->card_count >= 1 && p->card_count <= HAMI_MAX_CARDS && (p->priority == 0 || p->priority == 1));
    must(p->core_policy >= HAMI_CORE_DEFAULT && p->core_policy <= HAMI_CORE_DISABLE);
    for (int i = 0; i < p->card_count; i++) {
        must(p->cards[i].limit_bytes > 0 || !p->from_file);
        must(p->cards[i].limit_bytes >= 0 && p->cards[i].core_percent >= 1 && p->cards[i].core_percent <= 100);
        must(memchr(p->cards[i].uuid, 0, sizeof p->cards[i].uuid) != NULL);
    }
    must(memchr(p->ledger, 0, sizeof p->ledger) != NULL && memchr(p->broker, 0, sizeof p->broker) != NULL);
    must(memchr(p->container, 0, sizeof p->container) != NULL);
    must(!p->from_file || p->ledger[0] == '/');
}

static char value[256];

/* The input stands in every variable. */
static const char *variable(const char *name)
{
    (void)name;
    return value;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    hami_policy p;
    char why[200] = "";
    if (hami_policy_parse((const char *)bytes, size, &p, why, sizeof why))
        check(&p);
    else
        must(why[0] != '\0');
    const size_t length = size < sizeof value ? size : sizeof value - 1;
    memcpy(value, bytes, length);
    value[length] = '\0';
    must(hami_parse_size(value) >= -1);
    if (hami_policy_from_env(variable, 7, &p, why, sizeof why))
        check(&p);
    return 0;
}
