/* See loans.h. */
#include "memory/loans.h"

/* The rows lie in a file that the tenant can write: numbers that index are looked at first. */
static bool taken(const hami_loan *loan)
{
    return loan->borrower > 0 && loan->borrower <= HAMI_SLOTS && loan->card >= 0 && loan->card < HAMI_MAX_CARDS;
}

/* Under the lock. */
static void pay(hami_ledger *ledger, hami_loan *loan, bool pays)
{
    if (loan->pays == pays)
        return;
    const int64_t bytes = pays ? loan->bytes : -loan->bytes;
    hami_ledger_card *total = &ledger->cards[loan->card];
    loan->pays = pays;
    ledger->slots[loan->borrower - 1].cards[loan->card].loans += bytes;
    total->held += bytes;
    if (total->held > total->peak)
        total->peak = total->held;
}

/* Under the lock: of those who have memory mapped that nobody owns, one pays, for as often as it has mapped it. */
static void settle(hami_ledger *ledger, uint64_t key, int card)
{
    int payer = 0;
    for (int i = 0; i < HAMI_LOANS; i++) {
        hami_loan *loan = &ledger->loans[i];
        if (!taken(loan) || loan->owner != 0 || loan->key != key || loan->card != card)
            continue;
        payer = payer == 0 ? loan->borrower : payer;
        pay(ledger, loan, loan->borrower == payer);
    }
}

static void drop(hami_ledger *ledger, hami_loan *loan)
{
    const hami_loan gone = *loan;
    if (taken(loan))
        pay(ledger, loan, false);
    *loan = (hami_loan){0};
    settle(ledger, gone.key, gone.card);
}

static void orphan(hami_ledger *ledger, hami_loan *loan)
{
    loan->owner = 0;
    if (taken(loan))
        settle(ledger, loan->key, loan->card);
    else
        *loan = (hami_loan){0};
}

void hami_loans_leave(hami_ledger *ledger, int slot)
{
    for (int i = 0; i < HAMI_LOANS; i++) {
        if (ledger->loans[i].borrower == slot + 1)
            drop(ledger, &ledger->loans[i]);
    }
    for (int i = 0; i < HAMI_LOANS; i++) {
        if (ledger->loans[i].owner == slot + 1)
            orphan(ledger, &ledger->loans[i]);
    }
}

static bool alive(const hami_ledger *ledger, int slot)
{
    return slot >= 0 && slot < HAMI_SLOTS && atomic_load(&ledger->slots[slot].pid) != 0;
}

void hami_loans_recount(hami_ledger *ledger)
{
    for (int slot = 0; slot < HAMI_SLOTS; slot++) {
        for (int card = 0; card < HAMI_MAX_CARDS; card++)
            ledger->slots[slot].cards[card].loans = 0;
    }
    for (int i = 0; i < HAMI_LOANS; i++) {
        hami_loan *loan = &ledger->loans[i];
        loan->pays = false;
        if (loan->owner != 0 && !alive(ledger, loan->owner - 1))
            loan->owner = 0;
        if (taken(loan) ? !alive(ledger, loan->borrower - 1) : loan->owner == 0)
            *loan = (hami_loan){0};
    }
    for (int i = 0; i < HAMI_LOANS; i++) {
        if (taken(&ledger->loans[i]))
            settle(ledger, ledger->loans[i].key, ledger->loans[i].card);
    }
}

static int free_row(const hami_ledger *ledger)
{
    for (int i = 0; i < HAMI_LOANS; i++) {
        if (ledger->loans[i].owner == 0 && !taken(&ledger->loans[i]))
            return i;
    }
    return -1;
}

static int offered(const hami_ledger *ledger, uint64_t key)
{
    for (int i = 0; i < HAMI_LOANS; i++) {
        const hami_loan *loan = &ledger->loans[i];
        if (loan->owner != 0 && !taken(loan) && loan->key == key)
            return i;
    }
    return -1;
}

void hami_loan_offer(hami_ledger *ledger, int owner, int card, uint64_t key, int64_t bytes)
{
    hami_ledger_lock(ledger);
    const int row = offered(ledger, key) >= 0 ? offered(ledger, key) : free_row(ledger);
    if (row >= 0)
        ledger->loans[row] = (hami_loan){.key = key, .owner = owner + 1, .card = card, .bytes = bytes};
    hami_ledger_unlock(ledger);
}

bool hami_loan_find(hami_ledger *ledger, uint64_t key, hami_loan *out)
{
    hami_ledger_lock(ledger);
    const int row = offered(ledger, key);
    if (row >= 0)
        *out = ledger->loans[row];
    hami_ledger_unlock(ledger);
    return row >= 0;
}

int hami_loan_take(hami_ledger *ledger, int borrower, int owner, int card, uint64_t key, int64_t bytes)
{
    hami_ledger_lock(ledger);
    const int row = free_row(ledger);
    if (row >= 0) {
        const int32_t of = alive(ledger, owner) ? owner + 1 : 0;
        ledger->loans[row] = (hami_loan){.key = key, .owner = of, .borrower = borrower + 1, .card = card, .bytes = bytes};
        settle(ledger, key, card);
    }
    hami_ledger_unlock(ledger);
    return row;
}

void hami_loan_return(hami_ledger *ledger, int borrower, int row)
{
    hami_ledger_lock(ledger);
    if (ledger->loans[row].borrower == borrower + 1)
        drop(ledger, &ledger->loans[row]);
    hami_ledger_unlock(ledger);
}

/* Keys are not always of one allocation alone: of each who has some under it mapped, one loan is of the one that ends. */
void hami_loan_end(hami_ledger *ledger, int owner, int card, uint64_t key, hami_kind kind, int64_t bytes)
{
    bool seen[HAMI_SLOTS + 1] = {false};
    hami_ledger_lock(ledger);
    hami_ledger_release_locked(ledger, owner, card, kind, bytes);
    for (int i = 0; i < HAMI_LOANS; i++) {
        hami_loan *loan = &ledger->loans[i];
        const int borrower = taken(loan) ? loan->borrower : 0;
        if (loan->owner != owner + 1 || loan->key != key || loan->card != card || seen[borrower])
            continue;
        seen[borrower] = true;
        orphan(ledger, loan);
    }
    hami_ledger_unlock(ledger);
}
