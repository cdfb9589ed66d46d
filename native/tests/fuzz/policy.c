/* Fuzz target: the policy file, and the variables of hand use. What is accepted is within its bounds, whatever was in the text. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "limits/policy.h"

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

static char text[512];

/* The input is an environment, a line a variable; one without names stands in every variable. */
static const char *variable(const char *name)
{
    static char value[sizeof text];
    const size_t length = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) != 0 || line[length] != '=')
            continue;
        snprintf(value, sizeof value, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
        return value;
    }
    return strchr(text, '=') == NULL ? text : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    hami_policy p;
    char why[200] = "";
    if (hami_policy_parse((const char *)bytes, size, &p, why, sizeof why))
        check(&p);
    else
        must(why[0] != '\0');
    const size_t length = size < sizeof text ? size : sizeof text - 1;
    memcpy(text, bytes, length);
    text[length] = '\0';
    must(hami_parse_size(text) >= -1);
    if (hami_policy_from_env(variable, 7, &p, why, sizeof why))
        check(&p);
    return 0;
}
