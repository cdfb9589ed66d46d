/*
 * Loans: memory of one process of the container that another has mapped. Part of the ledger.
 *
 * Its maker pays for it. When the maker ends or frees it while others have it mapped, the memory stays, and one of those
 * pays from that moment on: both happen under the ledger's lock, so what is held never falls in between. The rows are the
 * truth; what a slot pays for loans is their sum, and is counted anew after a holder of the lock was killed.
 */
#ifndef HAMI_LOANS_H
#define HAMI_LOANS_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/ledger.h"

/* What an owner offers under a key, until it ends it. Any two processes compute the same key for the same memory. */
void hami_loan_offer(hami_ledger *ledger, int owner, int card, uint64_t key, int64_t bytes);

/* Looks for an offer. False: no process of this container made one. */
bool hami_loan_find(hami_ledger *ledger, uint64_t key, hami_loan *out);

/* `borrower` has mapped what `owner` made; where that is dead already, it pays. Returns a row, or -1 when 1024 are in use. */
int hami_loan_take(hami_ledger *ledger, int borrower, int owner, int card, uint64_t key, int64_t bytes);

/* It has unmapped it. */
void hami_loan_return(hami_ledger *ledger, int borrower, int row);

/* The owner has freed what it offered or lent under the key, and pays no more: who has it mapped does. */
void hami_loan_end(hami_ledger *ledger, int owner, int card, uint64_t key, hami_kind kind, int64_t bytes);

/* ---- for ledger.c, under its lock ---- */

void hami_loans_leave(hami_ledger *ledger, int slot); /* the slot's process is gone */
void hami_loans_recount(hami_ledger *ledger);         /* what each slot pays, after an owner of the lock was killed */

#endif
