/*
 * What a turn was charged, against what it took.
 *
 * Prices are means: where launches of one key are of several lengths, those of a turn may take far more than they were charged, or less, and no sample says it of
 * the others. But a turn begins and ends with nothing of ours on the card, nor anything of others, where each tenant says when it has work there outside of its
 * turns. So what was launched in it took no more than the time since it began, and no less than that in which work was seen on the card while its end was
 * waited for: where what it was charged is far from that, it is brought there, and what samples of the same turn have settled by then is taken back, or it
 * would count twice.
 *
 * Pure: the clock is passed in. The caller sees to it that one thread at a time is in here.
 */
#ifndef HAMI_SETTLE_H
#define HAMI_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "pay/budget.h"

/* Of one process on one card. */
typedef struct {
    bool ragged;            /* launches of several lengths have been made of late, in one stream: turns are settled; the caller says so */
    bool clean;             /* nothing has been on the card since the present turn began but what is launched in it */
    uint32_t turn;          /* the present or last one, from 1 */
    uint32_t since;         /* the first of those that were settled one after the other */
    int64_t begun_ns;       /* when something was first bought in it; 0: nothing was */
    int64_t bought_ns;      /* since then */
    int64_t credit_ns, corrected_ns; /* of the purse, as they were then */
    int64_t asking_ns;      /* price of the launch that asks, and is not made; the caller says so before it asks */
    int64_t said_ns;        /* what samples of such turns have charged */
    int64_t busy_from_ns, busy_until_ns; /* from when, and until when, its end was waited for with work on the card; 0: it was not */
} hami_settlement;

/* Our turn begins, of that number. */
void hami_settle_begins(hami_settlement *settlement, uint32_t turn);

/* That much was bought in it, and is in the purse. `others`: somebody else may have work on the card. */
void hami_settle_bought(hami_settlement *settlement, const hami_purse *purse, int64_t bought_ns, bool others, int64_t now_ns);

/* Work is on the card that is of no turn, ours or others': neither this turn can be settled, nor what samples of it said be taken back. */
void hami_settle_spoilt(hami_settlement *settlement);

/* While its end is waited for: there was work on the card at that time. */
void hami_settle_busy(hami_settlement *settlement, int64_t then_ns);

/* A sample of a launch in turn `turn` has charged `owed_ns` for those since the one before, which was of turn `before`; 0: of none, or none that was clean. */
void hami_settle_said(hami_settlement *settlement, uint32_t before, uint32_t turn, int64_t owed_ns);

/* The turn is over, and nothing of ours on the card. What is owed for it, below 0: what was charged too much. */
int64_t hami_settle_owed(hami_settlement *settlement, const hami_purse *purse, bool others, int64_t now_ns);

#endif
