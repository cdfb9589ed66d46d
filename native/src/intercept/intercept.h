/*
 * Interception by address.
 *
 * A lookup is made for real first, with the caller's handle, version and flags; then the address that came back is
 * translated: if it is the driver's entry point for a hooked name, the caller gets the hook. So whatever ABI the driver
 * chose is the ABI that the caller gets. Knows names and addresses, nothing of memory or time.
 */
#ifndef HAMI_INTERCEPT_INTERCEPT_H
#define HAMI_INTERCEPT_INTERCEPT_H

#include <stdbool.h>
#include <stddef.h>

#include "hami/cuda_abi.h"

typedef enum {
    HAMI_CHARGE,
    HAMI_DISCHARGE,
    HAMI_LIMIT,
    HAMI_VIRTUALISE,
    HAMI_GATE,
    HAMI_NEUTRAL,
    HAMI_DENY
} hami_class;

#define HAMI_NO_SLOT ((size_t)-1)

typedef struct {
    const char *name;
    hami_class kind;
    void *hook;  /* NULL: neutral */
    size_t slot; /* offset in hami_behind_t, or HAMI_NO_SLOT */
} hami_name;

extern const hami_name hami_names[]; /* sorted by name */
extern const unsigned int hami_name_count;

/* A private table of the driver, by the id that it is asked for with. */
typedef struct {
    CUuuid id;
    hami_class kind; /* HAMI_NEUTRAL or HAMI_DENY */
} hami_private;

extern const hami_private hami_privates[];
extern const unsigned int hami_private_count;

/* Finds the driver (loading it if need be), its entry points, and remembers them. False when there is none. */
bool hami_driver_load(void);

/* The same for NVML, which a container may lack. */
bool hami_nvml_load(void);

/* Handle of the driver (0) or NVML (1) for hami_dlsym; NULL before it is loaded. */
void *hami_driver_handle(int driver);

/* What a lookup that found `address` gives its caller. NULL: denied. */
void *hami_translate(void *address, const char *name);

/* Entry in the table, or NULL. */
const hami_name *hami_name_find(const char *name);

/* The real dlsym and dlopen, past our own. */
void *hami_dlsym(void *handle, const char *name);
void *hami_dlopen(const char *file, int mode);

/* What a denied function answers. */
CUresult hami_denied(const char *name);

/* Whether what this library does not know is denied. Reads the policy if nobody has, which may be before cuInit. */
bool hami_strict(void);

#endif
