/*
 * The broker's client: this process registers with the agent, hears its limits and tells what it uses.
 *
 * No thread of its own: cuInit joins, then the watch thread comes by once a second. While the broker is away, the last
 * limits stand and every few seconds it is looked for again. The socket is closed on exec and in forked children; a program that
 * closes all descriptors only makes us connect once more.
 */
#ifndef HAMI_BROKER_H
#define HAMI_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits/policy.h"

/*
 * Registers, before the driver starts: waits up to 10 s for an agent that is being restarted. True when the limits are here;
 * else `why` says what is wrong. With `fail_open` it waits for half a second.
 */
bool hami_broker_join(const hami_policy *policy, char *why, size_t why_size);

/* What the broker said of a card; false: nothing. */
bool hami_broker_limit(const char *uuid, hami_card_limit *limit);

/* Takes over what the broker said before the cards were known: pages, policy, priority. Once, after cuInit. */
void hami_broker_apply(void);

/* Once a second: reads what has come, tells what has changed, connects again. Never waits. */
void hami_broker_round(void);

/* In a forked child: the parent's connection is not ours. */
void hami_broker_forget(void);

#endif
