/*
 * What this process may use: read once, from the root-owned file or, by hand, from the environment.
 *
 * docs/reference/policy-file.md is the format. The parsers are pure (text in, struct out) and are what the fuzzers run.
 */
#ifndef HAMI_POLICY_H
#define HAMI_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef HAMI_POLICY_PATH
#define HAMI_POLICY_PATH "/usr/local/vgpu/policy"
#endif
#ifndef HAMI_LEDGER_PATH
#define HAMI_LEDGER_PATH "/usr/local/vgpu/ledger"
#endif

enum { HAMI_MAX_CARDS = 16, HAMI_MAX_POLICY_BYTES = 16384, HAMI_MAX_PATH = 108 };
#define HAMI_UNLIMITED INT64_MAX

typedef enum { HAMI_CORE_DEFAULT, HAMI_CORE_FORCE, HAMI_CORE_DISABLE } hami_core_policy;

typedef struct {
    char uuid[96];       /* as the driver prints it; by hand: empty, and the index counts */
    int64_t limit_bytes; /* HAMI_UNLIMITED: the whole card */
    int core_percent;    /* 1 to 99; 100: no limit */
} hami_card_limit;

typedef struct {
    bool from_file;  /* else by hand */
    bool off;        /* by hand only: CUDA_DISABLE_CONTROL, or nothing is limited */
    bool posted;     /* as the agent says it is now, and not only as it was when the container started */
    bool fail_open;
    bool strict;
    hami_core_policy core_policy;
    int priority; /* 0 high, 1 low */
    int log_level;
    char container[256];
    char ledger[HAMI_MAX_PATH];
    char broker[HAMI_MAX_PATH]; /* empty: none */
    int card_count;
    hami_card_limit cards[HAMI_MAX_CARDS];
} hami_policy;

/* Parses a policy file's text. On failure returns false and says in `why` which line and what is wrong with it. */
bool hami_policy_parse(const char *text, size_t length, hami_policy *policy, char *why, size_t why_size);

/* Parses the environment through `get` (getenv in life). False and `why` as above. */
bool hami_policy_from_env(const char *(*get)(const char *name), unsigned int uid, hami_policy *policy, char *why,
                          size_t why_size);

/* Parses "4g", "4GiB", "8000m", "123456". Returns bytes, or -1 when it is no size or does not fit. */
int64_t hami_parse_size(const char *text);

/* The file if there is one, brought up to date by what the agent has posted beside its socket; else the environment. */
bool hami_policy_load(hami_policy *policy, char *why, size_t why_size);

#endif
