/* Who takes of a card what only shows afterwards: one at a time, of all threads and processes of a container. */
#ifndef HAMI_CLAIMS_H
#define HAMI_CLAIMS_H

#include "memory/ledger.h"

/*
 * Lets one caller at a time, of all threads and processes, take what only shows afterwards. True: ours, until it is given up;
 * who dies with it gives it up. False: another kept it for `patience_ns`.
 */
bool hami_ledger_claim(hami_ledger *ledger, int slot, int card, int64_t patience_ns);
void hami_ledger_unclaim(hami_ledger *ledger, int slot, int card);

#endif
