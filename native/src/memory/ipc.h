/* Memory that other processes of the container may map by a handle. */
#ifndef HAMI_IPC_H
#define HAMI_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process/state.h"

/* The same in all processes for the same bytes; never 0. */
uint64_t hami_loan_key(const void *bytes, size_t size);

/* Was it offered to others? Then its charge has ended, and whoever has it mapped pays. False: the caller's to end. */
bool hami_offer_end(CUdeviceptr address, hami_card *card, hami_kind kind, int64_t bytes);

#endif
