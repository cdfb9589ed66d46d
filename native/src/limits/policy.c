/* See policy.h. Strict on purpose: a limit that is misread is worse than a program that does not start. */
#include "limits/policy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "prim/prim.h"

enum { MAX_LINE = 512 };
#define MIB ((int64_t)1 << 20)

__attribute__((format(printf, 3, 4))) static bool refuse(char *why, size_t size, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(why, size, format, values);
    va_end(values);
    return false;
}

/* Decimal digits only, the whole text, within [low, high]. */
static bool parse_whole(const char *text, int64_t low, int64_t high, int64_t *value)
{
    int64_t number = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || number > (INT64_MAX - 9) / 10)
            return false;
        number = number * 10 + (*text - '0');
    }
    *value = number;
    return number >= low && number <= high;
}

int64_t hami_parse_size(const char *text)
{
    char digits[24];
    size_t n = strspn(text, "0123456789");
    int64_t number = 0;
    if (n == 0 || n >= sizeof digits)
        return -1;
    memcpy(digits, text, n);
    digits[n] = '\0';
    if (!parse_whole(digits, 0, INT64_MAX, &number))
        return -1;
    const char *unit = text + n;
    int shift = 0;
    if (*unit != '\0') {
        const char *at = strchr("kKmMgGtT", *unit);
        if (at != NULL) {
            shift = (int)(10 * ((at - "kKmMgGtT") / 2 + 1));
            unit++;
            unit += *unit == 'i' || *unit == 'I';
        }
        unit += *unit == 'b' || *unit == 'B';
    }
    if (*unit != '\0' || number > (INT64_MAX >> 1) >> shift)
        return -1;
    return number << shift;
}

static void set_defaults(hami_policy *policy)
{
    memset(policy, 0, sizeof *policy);
    policy->priority = 1;
    snprintf(policy->ledger, sizeof policy->ledger, "%s", HAMI_LEDGER_PATH);
}

/* ---- the file ---- */

typedef struct {
    hami_policy *policy;
    unsigned int seen; /* bit a key */
} reading;

enum key { KEY_VERSION, KEY_CONTAINER, KEY_CORE_POLICY, KEY_PRIORITY, KEY_FAIL, KEY_STRICT, KEY_LEDGER, KEY_BROKER, KEY_CARD, KEY_END, KEY_COUNT };
static const char *const key_names[KEY_COUNT] = {"version", "container", "core_policy", "priority", "fail",
                                                 "strict",  "ledger",    "broker",      "card",     "end"};

static bool take_word(char *to, size_t size, const char *value)
{
    const size_t length = strlen(value);
    if (length == 0 || length >= size || strchr(value, ' ') != NULL)
        return false;
    memcpy(to, value, length + 1);
    return true;
}

static bool take_choice(const char *value, const char *const *choices, int *index)
{
    for (int i = 0; choices[i] != NULL; i++) {
        if (strcmp(value, choices[i]) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

static bool take_card(hami_policy *policy, const char *value)
{
    char uuid[96], memory[13], core[4], again[160];
    if (policy->card_count == HAMI_MAX_CARDS || sscanf(value, "%95s mem_mib %12s core_percent %3s", uuid, memory, core) != 3)
        return false;
    /* Each space counts, and nothing follows: sscanf would also take no space, or several. */
    snprintf(again, sizeof again, "%s mem_mib %s core_percent %s", uuid, memory, core);
    if (strcmp(again, value) != 0)
        return false;
    hami_card_limit *card = &policy->cards[policy->card_count];
    int64_t mib = 0, percent = 0;
    if (strcmp(memory, "all") == 0)
        card->limit_bytes = HAMI_UNLIMITED;
    else if (parse_whole(memory, 1, (int64_t)1 << 30, &mib))
        card->limit_bytes = mib * MIB;
    else
        return false;
    if (!parse_whole(core, 0, 100, &percent))
        return false;
    for (int i = 0; i < policy->card_count; i++) {
        if (strcmp(policy->cards[i].uuid, uuid) == 0)
            return false;
    }
    card->core_percent = percent == 0 ? 100 : (int)percent;
    memcpy(card->uuid, uuid, sizeof uuid);
    policy->card_count++;
    return true;
}

static bool take_value(hami_policy *policy, enum key key, const char *value)
{
    static const char *const policies[] = {"default", "force", "disable", NULL};
    static const char *const fails[] = {"closed", "open", NULL};
    static const char *const bits[] = {"0", "1", NULL};
    int chosen = 0;
    switch (key) {
    case KEY_VERSION:
        return strcmp(value, "1") == 0;
    case KEY_CONTAINER:
        return take_word(policy->container, sizeof policy->container, value);
    case KEY_CORE_POLICY:
        if (!take_choice(value, policies, &chosen))
            return false;
        policy->core_policy = (hami_core_policy)chosen;
        return true;
    case KEY_PRIORITY:
        return take_choice(value, bits, &policy->priority);
    case KEY_FAIL:
        if (!take_choice(value, fails, &chosen))
            return false;
        policy->fail_open = chosen == 1;
        return true;
    case KEY_STRICT:
        if (!take_choice(value, bits, &chosen))
            return false;
        policy->strict = chosen == 1;
        return true;
    case KEY_LEDGER:
        return value[0] == '/' && take_word(policy->ledger, sizeof policy->ledger, value);
    case KEY_BROKER:
        return value[0] == '/' && take_word(policy->broker, sizeof policy->broker, value);
    case KEY_CARD:
        return take_card(policy, value);
    case KEY_END:
        return *value == '\0';
    case KEY_COUNT:
        break;
    }
    return false;
}

static bool take_line(reading *state, const char *line)
{
    for (int key = 0; key < KEY_COUNT; key++) {
        const size_t length = strlen(key_names[key]);
        if (strncmp(line, key_names[key], length) != 0 || (line[length] != ' ' && line[length] != '\0'))
            continue;
        const bool first = (state->seen & 1u << key) == 0;
        if ((!first && key != KEY_CARD) || (state->seen == 0) != (key == KEY_VERSION) || (state->seen & 1u << KEY_END))
            return false;
        state->seen |= 1u << key;
        return take_value(state->policy, (enum key)key, line[length] == ' ' ? line + length + 1 : "");
    }
    return false;
}

/* Printable ASCII, as the format has it: what is said of a line may be shown as it is. */
static bool is_text(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    return true;
}

bool hami_policy_parse(const char *text, size_t length, hami_policy *policy, char *why, size_t why_size)
{
    const unsigned int needed = 1u << KEY_VERSION | 1u << KEY_CONTAINER | 1u << KEY_CARD | 1u << KEY_END;
    reading state = {.policy = policy};
    char line[MAX_LINE];
    set_defaults(policy);
    policy->from_file = true;
    int number = 0;
    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        number++;
        if (end == NULL)
            return refuse(why, why_size, "line %d has no end: the file is cut short", number);
        const size_t size = (size_t)(end - (text + at));
        if (size >= sizeof line || !is_text(text + at, size))
            return refuse(why, why_size, "line %d is no ASCII text of at most %d letters", number, MAX_LINE - 1);
        memcpy(line, text + at, size);
        line[size] = '\0';
        if (!take_line(&state, line))
            return refuse(why, why_size, "line %d cannot be used: \"%.80s\"", number, line);
        at += size + 1;
    }
    for (int key = 0; key < KEY_COUNT; key++) {
        if (needed & ~state.seen & 1u << key)
            return refuse(why, why_size, "no line \"%s\"", key_names[key]);
    }
    return true;
}

/* ---- by hand ---- */

static bool env_truth(const char *value)
{
    return value != NULL && (strcmp(value, "1") == 0 || strcasecmp(value, "t") == 0 || strcasecmp(value, "true") == 0);
}

/* NAME_<index> if set, else NAME; NULL if neither is. */
static const char *env_indexed(const char *(*get)(const char *), const char *name, int index, char *used, size_t size)
{
    snprintf(used, size, "%s_%d", name, index);
    const char *value = get(used);
    if (value != NULL && *value != '\0')
        return value;
    snprintf(used, size, "%s", name);
    value = get(used);
    return value != NULL && *value != '\0' ? value : NULL;
}

static bool env_card(const char *(*get)(const char *), int index, hami_card_limit *card, char *why, size_t why_size)
{
    char name[64];
    const char *value = env_indexed(get, "CUDA_DEVICE_MEMORY_LIMIT", index, name, sizeof name);
    card->limit_bytes = value == NULL ? HAMI_UNLIMITED : hami_parse_size(value);
    if (card->limit_bytes < 0)
        return refuse(why, why_size, "%s=%.40s is no size; use bytes or 512m, 4g, 4GiB", name, value);
    if (card->limit_bytes == 0)
        card->limit_bytes = HAMI_UNLIMITED; /* as HAMI-core has it, and as a percent of 0 */
    int64_t percent = 100;
    value = env_indexed(get, "CUDA_DEVICE_SM_LIMIT", index, name, sizeof name);
    if (value != NULL && !parse_whole(value, 0, 100, &percent))
        return refuse(why, why_size, "%s=%.40s is no whole number from 0 to 100", name, value);
    card->core_percent = percent == 0 ? 100 : (int)percent;
    return true;
}

bool hami_policy_from_env(const char *(*get)(const char *name), unsigned int uid, hami_policy *policy, char *why,
                          size_t why_size)
{
    set_defaults(policy);
    policy->off = env_truth(get("CUDA_DISABLE_CONTROL"));
    policy->card_count = HAMI_MAX_CARDS;
    bool limited = false;
    for (int i = 0; i < HAMI_MAX_CARDS; i++) {
        if (!env_card(get, i, &policy->cards[i], why, why_size))
            return false;
        limited |= policy->cards[i].limit_bytes != HAMI_UNLIMITED || policy->cards[i].core_percent != 100;
    }
    policy->off |= !limited;
    const char *value = get("GPU_CORE_UTILIZATION_POLICY");
    if (value == NULL || *value == '\0' || strcasecmp(value, "default") == 0)
        policy->core_policy = HAMI_CORE_DEFAULT;
    else if (strcasecmp(value, "force") == 0)
        policy->core_policy = HAMI_CORE_FORCE;
    else if (strcasecmp(value, "disable") == 0)
        policy->core_policy = HAMI_CORE_DISABLE;
    else
        return refuse(why, why_size, "GPU_CORE_UTILIZATION_POLICY=%.40s: use default, force or disable", value);
    value = get("CUDA_TASK_PRIORITY");
    int64_t priority = 1;
    if (value != NULL && *value != '\0' && !parse_whole(value, 0, 1, &priority))
        return refuse(why, why_size, "CUDA_TASK_PRIORITY=%.40s: use 0 or 1", value);
    policy->priority = (int)priority;
    value = get("CUDA_DEVICE_MEMORY_SHARED_CACHE");
    if (value == NULL || *value == '\0')
        snprintf(policy->ledger, sizeof policy->ledger, "/tmp/hami-vgpu-%u", uid);
    else if (!take_word(policy->ledger, sizeof policy->ledger, value))
        return refuse(why, why_size, "CUDA_DEVICE_MEMORY_SHARED_CACHE is no path of at most %d letters", HAMI_MAX_PATH - 1);
    return true;
}

static const char *environment(const char *name)
{
    return getenv(name);
}

/*
 * A container keeps the file that it was started with; the folder of the socket is mounted as a folder, root's too, and the
 * agent puts there what holds now. One that cannot be used, or is another container's, changes nothing.
 */
static void take_posted(hami_policy *policy, char *text, size_t size)
{
    char path[HAMI_MAX_PATH + 8], why[200];
    hami_policy now;
    const char *slash = strrchr(policy->broker, '/');
    if (slash == NULL)
        return;
    snprintf(path, sizeof path, "%.*s/policy", (int)(slash - policy->broker), policy->broker);
    const ssize_t length = hami_read_file(path, text, size);
    if (length <= 0 || !hami_policy_parse(text, (size_t)length, &now, why, sizeof why) ||
        strcmp(now.container, policy->container) != 0)
        return;
    memcpy(now.ledger, policy->ledger, sizeof now.ledger);
    memcpy(now.broker, policy->broker, sizeof now.broker);
    *policy = now;
    policy->posted = true;
}

bool hami_policy_load(hami_policy *policy, char *why, size_t why_size)
{
    char text[HAMI_MAX_POLICY_BYTES];
    const ssize_t length = hami_read_file(HAMI_POLICY_PATH, text, sizeof text);
    bool ok;
    if (length == -ENOENT || length == -ENOTDIR) {
        ok = hami_policy_from_env(environment, (unsigned int)getuid(), policy, why, why_size);
    } else if (length < 0) {
        set_defaults(policy);
        policy->from_file = true;
        ok = refuse(why, why_size, "%s: %s", HAMI_POLICY_PATH, strerror((int)-length));
    } else {
        ok = hami_policy_parse(text, (size_t)length, policy, why, why_size);
        if (ok)
            take_posted(policy, text, sizeof text);
    }
    int64_t level = 0;
    const char *value = getenv("LIBCUDA_LOG_LEVEL"); /* a tenant may want to see more; it changes no limit */
    if (value != NULL && parse_whole(value, 0, 4, &level))
        policy->log_level = (int)level;
    return ok;
}
