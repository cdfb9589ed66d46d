/* What lookups (lookup.c) ask of the map from driver addresses to hooks (translate.c). */
#ifndef HAMI_INTERCEPT_TRANSLATE_H
#define HAMI_INTERCEPT_TRANSLATE_H

#include "intercept/elf.h"
#include "intercept/intercept.h"

/* There are limits, or such as cannot be read. */
bool hami_limited(void);

/* True: of the driver or NVML that is in use. */
bool hami_in_drivers(const void *address);

/* What the driver or NVML that is loaded has by that name; NULL: nothing. */
void *hami_driver_symbol(const char *name);

/* Says so, and is NULL. `why`: of what it is. */
void *hami_denied_lookup(const char *name, const char *why);

#endif
