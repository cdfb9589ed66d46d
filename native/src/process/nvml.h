/* What NVML knows and the driver does not say: the bytes of this process, and who else is on the card. */
#ifndef HAMI_NVML_H
#define HAMI_NVML_H

#include <stdbool.h>
#include <stdint.h>

#include "hami/cuda_abi.h"

nvmlDevice_t hami_nvml_card(const char *uuid); /* NULL: no NVML, or it does not know the card */

typedef struct {
    int64_t own_bytes;    /* below 0: this process is not in the list */
    int others;           /* processes on the card without a slot in this ledger */
} hami_nvml_view;

/* Reads the process list, about 0.3 ms. False when NVML cannot say. */
bool hami_nvml_read(nvmlDevice_t card, hami_nvml_view *view);

#endif
