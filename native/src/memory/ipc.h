/* Memory that other processes of the container may map by a handle. */
#ifndef HAMI_IPC_H
#define HAMI_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process/state.h"

/* The same in all processes for the same bytes; never 0. */
uint64_t hami_loan_key(const void *bytes, size_t size);

/*
 * Memory is about to be freed: the key under which it was offered to others, 0: none. Once it is freed its address may be another's. Then it is
 * still there, or it has gone: its charge has ended, and whoever has it mapped pays; false: it was not offered, and the charge is the caller's to end.
 */
uint64_t hami_offer_leaves(CUdeviceptr address);
void hami_offer_stays(CUdeviceptr address, uint64_t key);
bool hami_offer_end(uint64_t key, hami_card *card, hami_kind kind, int64_t bytes);

#endif
