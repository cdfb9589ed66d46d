/* Turns of launches whose prices say little, turn by turn: what is owed for one when it is over. See units.h. */
#include "pay/settle.h"
#include "units.h"

#define MS 1000000

static hami_settlement turn;
static hami_purse purse;
static int64_t now;

static void begin(uint32_t number, bool others)
{
    hami_settle_begins(&turn, number);
    /* The first launch has been taken out of the purse when it is bought. */
    atomic_fetch_sub(&purse.credit_ns, 10 * MS);
    turn.asking_ns = 10 * MS;
    atomic_fetch_add(&purse.credit_ns, 12 * MS);
    hami_settle_bought(&turn, &purse, 12 * MS, others, now);
}

/* A launch of 10 ms has begun the turn and `launches` more of 1 ms are made in it; all together they take that long, its end waited for from `waited_ns` on. */
static int64_t had(uint32_t number, int launches, int64_t took_ns, int64_t waited_ns, bool others)
{
    begin(number, false);
    for (int i = 0; i < launches; i++) {
        atomic_fetch_sub(&purse.credit_ns, MS);
        turn.asking_ns = MS;
        atomic_fetch_add(&purse.credit_ns, MS);
        hami_settle_bought(&turn, &purse, MS, false, now + i);
    }
    atomic_fetch_sub(&purse.credit_ns, MS); /* the next asks, and is told to wait for the end */
    turn.asking_ns = MS;
    for (int64_t at = waited_ns; at < took_ns; at += MS / 10)
        hami_settle_busy(&turn, now + at);
    now += took_ns;
    const int64_t owed = hami_settle_owed(&turn, &purse, others, now);
    hami_budget_correct(&purse, owed);
    atomic_fetch_add(&purse.credit_ns, MS);
    return owed;
}

void settle(void)
{
    now = 1000 * (int64_t)MS;
    /* Before the first has ended nobody knows what else was on the card; where launches are of one length prices are right as they are. */
    turn.ragged = true;
    CHECK(had(1, 5, 90 * MS, 1 * MS, false) == 0);
    turn.ragged = false;
    CHECK(had(2, 5, 90 * MS, 1 * MS, false) == 0);
    turn.ragged = true;
    /* Charged 15: too little by what was seen on the card while its end was waited for, too much by what it cannot have taken. */
    CHECK(had(3, 5, 90 * MS, 1 * MS, false) == (int64_t)(88.9 * MS) - 15 * MS);
    CHECK(had(4, 5, 8 * MS, 1 * MS, false) == 8 * MS - 15 * MS);
    /* A host that was away may have left the card idle: what is between is believed. */
    CHECK(had(5, 5, 90 * MS, 85 * MS, false) == 0);
    CHECK(had(6, 5, 90 * MS, 200 * MS, false) == 0);
    /* Somebody else's work, in the turn or at its end, or ours of before: nothing is owed for it, nor for one in which nothing was bought. */
    CHECK(had(7, 5, 90 * MS, 1 * MS, true) == 0);
    hami_settle_spoilt(&turn);
    CHECK(had(8, 5, 90 * MS, 1 * MS, false) == 0);
    begin(9, true);
    hami_settle_busy(&turn, now);
    hami_settle_busy(&turn, now += 50 * MS);
    CHECK(hami_settle_owed(&turn, &purse, false, now) == 0);
    hami_settle_begins(&turn, 10);
    CHECK(hami_settle_owed(&turn, &purse, false, now + 9 * MS) == 0);
    /* What samples of settled turns say of such turns is in it already; what they say of launches before those is not. */
    CHECK(had(11, 5, 50 * MS, 1 * MS, false) == (int64_t)(48.9 * MS) - 15 * MS);
    begin(12, false);
    hami_settle_said(&turn, 3, 12, 7 * MS);
    hami_settle_said(&turn, 11, 12, 30 * MS);
    hami_budget_correct(&purse, 37 * MS);
    now += 5 * MS;
    turn.asking_ns = 0;
    CHECK(hami_settle_owed(&turn, &purse, false, now) == 5 * MS - 10 * MS - 30 * MS);
    /* What was charged is near what the turn took: what samples say of it stands. */
    begin(13, false);
    hami_settle_said(&turn, 12, 13, 30 * MS);
    hami_budget_correct(&purse, 30 * MS);
    turn.asking_ns = 0;
    now += 9 * MS;
    CHECK(hami_settle_owed(&turn, &purse, false, now) == 0);
    CHECK(had(14, 5, 8 * MS, 1 * MS, false) == 8 * MS - 15 * MS);
}
