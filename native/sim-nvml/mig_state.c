/* Keeps the MIG instances in their file: one line each, rewritten as a whole. */
#define _GNU_SOURCE
#include "mig_state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define WORD "%95s" /* NVML_UUID_SIZE - 1 */

static struct mig_state state;
static FILE *file;

static bool read_mode(const char *line)
{
    struct mig_mode *mode = &state.modes[state.mode_count];
    int current;
    int pending;
    if (state.mode_count == MAX_CARDS || sscanf(line, "mode " WORD " %d %d", mode->card, &current, &pending) != 3)
        return false;
    mode->current = current != 0;
    mode->pending = pending != 0;
    state.mode_count++;
    return true;
}

static bool read_gi(const char *line)
{
    struct mig_gi *gi = &state.gis[state.gi_count];
    if (state.gi_count == MAX_INSTANCES || sscanf(line, "gi " WORD " %u %u %u %u", gi->card, &gi->id, &gi->profile,
                                                  &gi->placement.start, &gi->placement.size) != 5)
        return false;
    state.gi_count++;
    return true;
}

static bool read_ci(const char *line)
{
    struct mig_ci *ci = &state.cis[state.ci_count];
    if (state.ci_count == MAX_INSTANCES || sscanf(line, "ci " WORD " %u %u %u %u %u", ci->card, &ci->gi, &ci->id,
                                                  &ci->profile, &ci->placement.start, &ci->placement.size) != 6)
        return false;
    state.ci_count++;
    return true;
}

static void read_all(void)
{
    char line[512];
    memset(&state, 0, sizeof state);
    while (fgets(line, sizeof line, file) != NULL)
        (void)(read_mode(line) || read_gi(line) || read_ci(line));
}

static int order_gi(const void *left, const void *right)
{
    const struct mig_gi *one = left;
    const struct mig_gi *other = right;
    int cards = strcmp(one->card, other->card);
    return cards != 0 ? cards : (one->id > other->id) - (one->id < other->id);
}

static int order_ci(const void *left, const void *right)
{
    const struct mig_ci *one = left;
    const struct mig_ci *other = right;
    int cards = strcmp(one->card, other->card);
    if (cards != 0)
        return cards;
    if (one->gi != other->gi)
        return one->gi > other->gi ? 1 : -1;
    return (one->id > other->id) - (one->id < other->id);
}

static bool write_all(void)
{
    qsort(state.gis, state.gi_count, sizeof state.gis[0], order_gi);
    qsort(state.cis, state.ci_count, sizeof state.cis[0], order_ci);
    rewind(file);
    if (ftruncate(fileno(file), 0) != 0)
        return false;
    for (unsigned int i = 0; i < state.mode_count; i++)
        (void)fprintf(file, "mode %s %d %d\n", state.modes[i].card, state.modes[i].current, state.modes[i].pending);
    for (unsigned int i = 0; i < state.gi_count; i++) {
        const struct mig_gi *gi = &state.gis[i];
        (void)fprintf(file, "gi %s %u %u %u %u\n", gi->card, gi->id, gi->profile, gi->placement.start,
                      gi->placement.size);
    }
    for (unsigned int i = 0; i < state.ci_count; i++) {
        const struct mig_ci *ci = &state.cis[i];
        (void)fprintf(file, "ci %s %u %u %u %u %u\n", ci->card, ci->gi, ci->id, ci->profile, ci->placement.start,
                      ci->placement.size);
    }
    return fflush(file) == 0 && ferror(file) == 0;
}

struct mig_state *mig_open(void)
{
    char name[4200];
    (void)snprintf(name, sizeof name, "%s.mig", rack_path());
    int descriptor = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0)
        return NULL;
    file = flock(descriptor, LOCK_EX) == 0 ? fdopen(descriptor, "r+") : NULL;
    if (file == NULL) {
        (void)close(descriptor);
        return NULL;
    }
    read_all();
    return &state;
}

bool mig_close(bool changed)
{
    bool written = !changed || write_all();
    (void)fclose(file); /* and with it the lock */
    file = NULL;
    return written;
}
