/*
 * Reads a description file: one word and its values a line, in sections.
 *
 *     hami-sim-cards 1
 *     driver 580.95.05
 *     card
 *     uuid GPU-...
 *     memory 42949672960 655360000 0
 *     end
 *
 * hami.sim.cards writes it from YAML and says what each value means. The last
 * line tells a whole file from a half-written one. An unknown word is an error.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "rack.h"

#define HEADER "hami-sim-cards 1"
#define LINE_SIZE 1024

/* What a line's reader gets. `card` is NULL before the first card. */
struct place {
    struct rack *rack;
    struct card *card;
};

/* False: the values are not what the word needs. */
typedef bool (*reader)(struct place *place, const char *values);

struct word {
    const char *name;
    reader read;
    bool of_card;
};

static bool text_of(char *to, size_t size, const char *values)
{
    return values[0] != '\0' && (size_t)snprintf(to, size, "%s", values) < size;
}

static bool read_driver(struct place *place, const char *values)
{
    return text_of(place->rack->driver, sizeof place->rack->driver, values);
}

static bool read_nvml(struct place *place, const char *values)
{
    return text_of(place->rack->nvml, sizeof place->rack->nvml, values);
}

static bool read_cuda(struct place *place, const char *values)
{
    return sscanf(values, "%d", &place->rack->cuda) == 1;
}

static bool read_card(struct place *place, const char *values)
{
    struct rack *rack = place->rack;
    if (rack->card_count == MAX_CARDS || values[0] != '\0')
        return false;
    place->card = &rack->cards[rack->card_count];
    place->card->index = rack->card_count;
    place->card->minor = rack->card_count;
    place->card->numa = -1;
    rack->card_count++;
    return true;
}

static bool read_uuid(struct place *place, const char *values)
{
    return text_of(place->card->uuid, sizeof place->card->uuid, values);
}

static bool read_name(struct place *place, const char *values)
{
    return text_of(place->card->name, sizeof place->card->name, values);
}

static bool read_serial(struct place *place, const char *values)
{
    return text_of(place->card->serial, sizeof place->card->serial, values);
}

static bool read_minor(struct place *place, const char *values)
{
    return sscanf(values, "%u", &place->card->minor) == 1;
}

static bool read_pci(struct place *place, const char *values)
{
    struct card *card = place->card;
    return sscanf(values, "%x:%x:%x.0 %x %x", &card->domain, &card->bus, &card->device, &card->pci_id,
                  &card->pci_subsystem) == 5;
}

static bool read_memory(struct place *place, const char *values)
{
    struct card *card = place->card;
    card->memory_known = strcmp(values, "none") != 0;
    return !card->memory_known || sscanf(values, "%lu %lu %lu", &card->memory_total, &card->memory_reserved,
                                         &card->memory_used) == 3;
}

static bool read_numa(struct place *place, const char *values)
{
    return sscanf(values, "%d", &place->card->numa) == 1;
}

static bool read_compute(struct place *place, const char *values)
{
    struct card *card = place->card;
    return sscanf(values, "%d %d %u %u", &card->compute_major, &card->compute_minor, &card->architecture,
                  &card->cores) == 4;
}

static bool read_busy(struct place *place, const char *values)
{
    return sscanf(values, "%u %u", &place->card->busy_gpu, &place->card->busy_memory) == 2;
}

static bool read_temperature(struct place *place, const char *values)
{
    return sscanf(values, "%u", &place->card->temperature) == 1;
}

static bool read_power(struct place *place, const char *values)
{
    return sscanf(values, "%u %u", &place->card->power, &place->card->power_limit) == 2;
}

static bool read_clocks(struct place *place, const char *values)
{
    struct card *card = place->card;
    return sscanf(values, "%u %u %u %u", &card->sm_clock, &card->sm_clock_max, &card->memory_clock,
                  &card->memory_clock_max) == 4;
}

static bool read_lost(struct place *place, const char *values)
{
    place->card->lost = true;
    return values[0] == '\0';
}

static bool read_recovery(struct place *place, const char *values)
{
    return sscanf(values, "%u", &place->card->recovery) == 1;
}

static bool read_remapped(struct place *place, const char *values)
{
    struct card *card = place->card;
    return sscanf(values, "%u %u %u %u", &card->remapped_correctable, &card->remapped_uncorrectable,
                  &card->remap_pending, &card->remap_failed) == 4;
}

static bool switch_of(const char *word, enum switchable *to)
{
    static const char *const words[] = {"none", "off", "on"};
    for (unsigned int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            *to = (enum switchable)i;
            return true;
        }
    }
    return false;
}

static bool read_ecc(struct place *place, const char *values)
{
    return switch_of(values, &place->card->ecc);
}

static bool read_mig(struct place *place, const char *values)
{
    char current[8];
    char pending[8];
    return sscanf(values, "%7s %7s", current, pending) == 2 && switch_of(current, &place->card->mig_current) &&
           switch_of(pending, &place->card->mig_pending);
}

static bool read_path(struct place *place, const char *values)
{
    unsigned int other;
    unsigned int level;
    if (sscanf(values, "%u %u", &other, &level) != 2 || other >= MAX_CARDS)
        return false;
    place->card->path[other] = level;
    return true;
}

static bool read_p2p(struct place *place, const char *values)
{
    unsigned int other;
    unsigned int status;
    if (sscanf(values, "%u %u", &other, &status) != 2 || other >= MAX_CARDS || status > 6)
        return false;
    place->card->p2p[other] = (unsigned char)status;
    return true;
}

static bool read_link(struct place *place, const char *values)
{
    struct card *card = place->card;
    struct link *link = &card->links[card->link_count];
    char end[8];
    if (card->link_count == NVML_MAX_LINKS || sscanf(values, "%7s %u %x:%x:%x.0", end, &link->version, &link->domain,
                                                     &link->bus, &link->device) != 5)
        return false;
    if (strcmp(end, "gpu") == 0)
        link->end = LINK_GPU;
    else if (strcmp(end, "switch") == 0)
        link->end = LINK_SWITCH;
    else if (strcmp(end, "down") != 0)
        return false;
    card->link_count++;
    return true;
}

static bool read_placements(struct profile *profile, const char *text)
{
    while (*text != '\0') {
        nvmlGpuInstancePlacement_t *placement = &profile->placements[profile->placement_count];
        int taken = 0;
        if (profile->placement_count == MAX_PLACEMENTS ||
            sscanf(text, " %u:%u%n", &placement->start, &placement->size, &taken) != 2)
            return false;
        profile->placement_count++;
        text += taken;
    }
    return profile->placement_count > 0;
}

static bool read_profile(struct place *place, const char *values)
{
    struct card *card = place->card;
    struct profile *profile = &card->profiles[card->profile_count];
    nvmlGpuInstanceProfileInfo_t *info = &profile->info;
    int taken = 0;
    if (card->profile_count == MAX_PROFILES)
        return false;
    if (sscanf(values, "%u %u %u %u %u %u %u %u %u %u %llu %31s%n", &profile->index, &info->id, &info->sliceCount,
               &info->instanceCount, &info->multiprocessorCount, &info->copyEngineCount, &info->decoderCount,
               &info->encoderCount, &info->jpegCount, &info->ofaCount, &info->memorySizeMB, profile->name,
               &taken) != 12)
        return false;
    card->profile_count++;
    return read_placements(profile, values + taken);
}

static bool kind_of(const char *word, enum process_kind *kind)
{
    static const char *const words[] = {"compute", "graphics", "mps"};
    for (unsigned int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            *kind = (enum process_kind)i;
            return true;
        }
    }
    return false;
}

/* An instance id of -1 is "none", which NVML writes as all ones; the cast does just that. */
static bool read_process(struct place *place, const char *values)
{
    struct card *card = place->card;
    struct process *process = &card->processes[card->process_count];
    char kind[16];
    long long memory;
    int gi;
    int ci;
    if (card->process_count == MAX_PROCESSES ||
        sscanf(values, "%u %15s %lld %u %u %u %u %d %d", &process->pid, kind, &memory, &process->sm, &process->mem,
               &process->enc, &process->dec, &gi, &ci) != 9 ||
        !kind_of(kind, &process->kind))
        return false;
    process->memory = (uint64_t)memory;
    process->gi = (unsigned int)gi;
    process->ci = (unsigned int)ci;
    card->process_count++;
    return true;
}

static bool read_event(struct place *place, const char *values)
{
    struct card *card = place->card;
    struct event *event = &card->events[card->event_count];
    int gi;
    int ci;
    if (card->event_count == MAX_EVENTS ||
        sscanf(values, "%lu %lu %lu %d %d", &event->sequence, &event->type, &event->value, &gi, &ci) != 5)
        return false;
    event->gi = (unsigned int)gi;
    event->ci = (unsigned int)ci;
    card->event_count++;
    return true;
}

static bool read_fault(struct place *place, const char *values)
{
    struct faults *faults = place->card ? &place->card->faults : &place->rack->faults;
    struct fault *fault = &faults->list[faults->count];
    unsigned int result;
    if (faults->count == MAX_FAULTS || sscanf(values, "%71s %u %u", fault->function, &result, &fault->delay_ms) != 3)
        return false;
    fault->result = (nvmlReturn_t)result;
    faults->count++;
    return true;
}

static const struct word words[] = {
    {"driver", read_driver, false},   {"nvml", read_nvml, false},
    {"cuda", read_cuda, false},       {"card", read_card, false},
    {"fault", read_fault, false},     {"uuid", read_uuid, true},
    {"name", read_name, true},        {"serial", read_serial, true},
    {"minor", read_minor, true},      {"pci", read_pci, true},
    {"memory", read_memory, true},    {"numa", read_numa, true},
    {"compute", read_compute, true},  {"busy", read_busy, true},
    {"temperature", read_temperature, true}, {"power", read_power, true},
    {"clocks", read_clocks, true},    {"lost", read_lost, true},
    {"ecc", read_ecc, true},          {"mig", read_mig, true},
    {"path", read_path, true},        {"p2p", read_p2p, true},
    {"link", read_link, true},        {"profile", read_profile, true},
    {"process", read_process, true},  {"event", read_event, true},
    {"recovery", read_recovery, true}, {"remapped", read_remapped, true},
};

static bool read_line(struct place *place, char *line)
{
    char *values = strchr(line, ' ');
    if (values != NULL)
        *values++ = '\0';
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].name, line) == 0)
            return (!words[i].of_card || place->card != NULL) && words[i].read(place, values ? values : "");
    return false;
}

static bool fail(char *problem, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool fail(char *problem, size_t size, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    (void)vsnprintf(problem, size, format, values);
    va_end(values);
    return false;
}

bool rack_parse(FILE *file, struct rack *rack, char *problem, size_t problem_size)
{
    char line[LINE_SIZE];
    struct place place = {.rack = rack};
    memset(rack, 0, sizeof *rack);
    for (unsigned int number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        line[strcspn(line, "\n")] = '\0';
        if (number == 1) {
            if (strcmp(line, HEADER) != 0)
                return fail(problem, problem_size, "line 1 is not \"" HEADER "\"");
        } else if (strcmp(line, "end") == 0) {
            return true;
        } else if (!read_line(&place, line)) {
            return fail(problem, problem_size, "line %u is not understood: %.100s", number, line);
        }
    }
    return fail(problem, problem_size, "the last line, \"end\", is missing: half a file?");
}
