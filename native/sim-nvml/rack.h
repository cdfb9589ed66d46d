/*
 * The rack: the simulated cards of one machine, as their description file says.
 *
 * rack.c keeps it current and guards it; parse.c reads the file; every other
 * file answers one chapter of NVML from it. The file is read again whenever it
 * has changed, so a test can pull a card while programs are using it.
 */
#ifndef HAMI_SIM_RACK_H
#define HAMI_SIM_RACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "nvml_abi.h"

#define MAX_CARDS 32U
#define MAX_PROCESSES 256U
#define MAX_EVENTS 64U
#define MAX_FAULTS 32U
#define MAX_PROFILES 24U
#define MAX_PLACEMENTS 16U
#define FUNCTION_SIZE 72U

/* An answer to give instead of the true one. */
struct fault {
    char function[FUNCTION_SIZE]; /* without its version suffix, it means all versions; "*" is every function */
    nvmlReturn_t result;
    unsigned int delay_ms; /* before the answer: a sick card blocks its caller; result may then be success */
};

struct faults {
    struct fault list[MAX_FAULTS];
    unsigned int count;
};

enum process_kind { PROCESS_COMPUTE, PROCESS_GRAPHICS, PROCESS_MPS };

struct process {
    unsigned int pid;
    enum process_kind kind;
    uint64_t memory; /* bytes, NVML_NO_VALUE_64 where unknown */
    unsigned int sm, mem, enc, dec; /* percent */
    unsigned int gi, ci; /* NVML_NO_VALUE outside MIG */
};

struct event {
    uint64_t sequence; /* grows over the file's life: an event set delivers what is above its own mark */
    uint64_t type;
    uint64_t value; /* of an Xid event, the Xid */
    unsigned int gi, ci;
};

enum link_end { LINK_NONE, LINK_GPU, LINK_SWITCH };

struct link {
    enum link_end end; /* LINK_NONE: the card has no such link, or it is down */
    unsigned int version;
    unsigned int domain, bus, device; /* of the other end */
};

struct profile {
    unsigned int index; /* NVML_GPU_INSTANCE_PROFILE_..., what queries name */
    nvmlGpuInstanceProfileInfo_t info;
    char name[32]; /* "1g.5gb" */
    nvmlGpuInstancePlacement_t placements[MAX_PLACEMENTS];
    unsigned int placement_count;
};

enum switchable { SWITCH_NONE, SWITCH_OFF, SWITCH_ON };

struct card {
    unsigned int index;
    char uuid[NVML_UUID_SIZE];
    char name[NVML_NAME_SIZE];
    char serial[32];
    unsigned int minor;
    unsigned int domain, bus, device, pci_id, pci_subsystem;
    uint64_t memory_total, memory_reserved, memory_used; /* bytes; used is without reserved */
    bool memory_known;                                   /* false on boards that share the host's memory */
    int numa;                                            /* -1 where the platform does not say */
    int compute_major, compute_minor;
    unsigned int architecture;
    unsigned int cores;
    unsigned int busy_gpu, busy_memory; /* percent */
    unsigned int temperature;           /* degrees Celsius */
    unsigned int power, power_limit;    /* mW */
    unsigned int sm_clock, sm_clock_max, memory_clock, memory_clock_max; /* MHz */
    bool lost;
    unsigned int recovery; /* NVML_GPU_RECOVERY_ACTION_...: what the driver says must be done, 0 is nothing */
    unsigned int remapped_correctable, remapped_uncorrectable; /* memory rows */
    unsigned int remap_pending, remap_failed;                  /* booleans, as NVML gives them */
    enum switchable ecc;
    enum switchable mig_current, mig_pending; /* as described; what SetMigMode changes is in mig.c's own file */
    unsigned int path[MAX_CARDS];             /* NVML_TOPOLOGY_... to each other card */
    unsigned char p2p[MAX_CARDS];             /* NVML_P2P_STATUS_... over PCIe to each other card */
    struct link links[NVML_MAX_LINKS];
    unsigned int link_count;
    struct profile profiles[MAX_PROFILES];
    unsigned int profile_count;
    struct process processes[MAX_PROCESSES];
    unsigned int process_count;
    struct event events[MAX_EVENTS];
    unsigned int event_count;
    struct faults faults;
};

struct rack {
    char driver[80];
    char nvml[80];
    int cuda; /* 1000 x major + 10 x minor */
    struct card cards[MAX_CARDS];
    unsigned int card_count;
    struct faults faults; /* of every card and of the functions that name none */
};

/* parse.c: false, with a sentence in `problem`, leaves the caller to keep what it has. */
bool rack_parse(FILE *file, struct rack *rack, char *problem, size_t problem_size);

/* A device handle: a card, or a MIG device of one. It outlives the card, as the real one does. */
struct handle {
    bool used;
    bool mig;
    char uuid[NVML_UUID_SIZE]; /* the handle's own */
    char card[NVML_UUID_SIZE]; /* the card's, equal to `uuid` unless `mig` */
    unsigned int gi, ci;
};

extern struct rack the_rack; /* only between enter...() and leave() */

/*
 * Each NVML function begins with one of these and ends with leave(). They read
 * the file again if it has changed, refuse before nvmlInit, and give the fault
 * that the file asks for. The rack is locked when, and only when, they succeed.
 */
nvmlReturn_t enter(const char *function);
nvmlReturn_t enter_card(const char *function, nvmlDevice_t device, struct card **card);
nvmlReturn_t leave(nvmlReturn_t result);

/* As enter_card, for a function that also takes MIG devices; `handle` says which it is. */
nvmlReturn_t enter_device(const char *function, nvmlDevice_t device, struct card **card, struct handle **handle);

/* All below need the lock. */
struct card *card_by_uuid(const char *uuid);
nvmlReturn_t card_handle(const struct card *card, nvmlDevice_t *device); /* a lost card has none */
nvmlReturn_t mig_handle(const struct card *card, const char *uuid, unsigned int gi, unsigned int ci,
                        nvmlDevice_t *device);
const char *rack_path(void); /* of the description file, "" where there is none */
nvmlReturn_t copy_text(char *to, unsigned int size, const char *text);

void pci_fill(nvmlPciInfo_t *pci, unsigned int domain, unsigned int bus, unsigned int device);

/* mig.c: MIG's part in questions that other files answer. */
bool mig_is_on(const struct card *card);
nvmlReturn_t mig_device_by_uuid(const char *uuid, nvmlDevice_t *device);
nvmlReturn_t mig_device_memory(const struct card *card, const struct handle *handle, nvmlMemory_v2_t *memory);
void mig_device_name(const struct card *card, const struct handle *handle, char name[NVML_NAME_SIZE]);

/* Waits without the lock for `milliseconds`, then takes it again; UNINITIALIZED if NVML was shut down meanwhile. */
nvmlReturn_t leave_for(unsigned int milliseconds);

#endif
