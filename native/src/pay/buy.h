/* Buying GPU time: waiting for the budget and for our turn on the card. */
#ifndef HAMI_BUY_H
#define HAMI_BUY_H

#include "process/state.h"

/*
 * Buys what the purse lacks for a launch on `stream`, old debt included. `spare_ns`: GPU time that was bought before for this
 * launch, which the card has therefore not got to do yet. Returns when it is bought; keeps errno.
 */
void hami_buy(hami_card *card, int64_t need_ns, int64_t spare_ns, CUstream stream);

#endif
