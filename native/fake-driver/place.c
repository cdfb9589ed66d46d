/*
 * Where on the card a kernel runs, and when. See place.h.
 *
 * A card is handed to one process at a time, for at most 2 ms ahead, which is the time slice. Meanwhile it runs as many of that process's
 * kernels, of several streams, as it has parts for; one that needs more than are free waits for them, and kernels that fill the card run one
 * after the other.
 */
#include "place.h"

#include "fake.h"

enum { SLICE_NS = 2000000 };

typedef struct {
    int64_t free_ns[FAKE_PARTS]; /* when each part is free for this process */
    int64_t held_until_ns;       /* the card was this process's, when last handed to it, up to here */
} place;

static place places[SIM_LIVE_CARDS];

int fake_parts(uint64_t blocks)
{
    const uint64_t parts = (blocks + FAKE_PART_BLOCKS - 1) / FAKE_PART_BLOCKS;
    return parts < 1 ? 1 : parts > FAKE_PARTS ? FAKE_PARTS : (int)parts;
}

/* Others have had the card since: nothing of this process begins before they are through. */
static void wait_for_others(place *p, int64_t free_at_ns)
{
    for (int i = 0; i < FAKE_PARTS && free_at_ns != p->held_until_ns; i++) {
        if (p->free_ns[i] < free_at_ns)
            p->free_ns[i] = free_at_ns;
    }
}

/* Those that are free first to the front: few move, so this is near a single look. */
static void sort(int64_t *free_ns)
{
    for (int i = 1; i < FAKE_PARTS; i++) {
        const int64_t value = free_ns[i];
        int at = i;
        for (; at > 0 && free_ns[at - 1] > value; at--)
            free_ns[at] = free_ns[at - 1];
        free_ns[at] = value;
    }
}

/*
 * The first of the parts that a kernel gets: those that became free last before it is ready, so that the others stay free for what other
 * streams begin earlier; else those that are free first.
 */
static int choose(const int64_t *free_ns, int64_t ready_ns, int parts)
{
    int free = 0;
    while (free < FAKE_PARTS && free_ns[free] <= ready_ns)
        free++;
    return free > parts ? free - parts : 0;
}

int64_t fake_place(int card, int64_t ready_ns, int64_t duration_ns, int parts, int64_t now_ns)
{
    place *p = &places[card];
    const int at = fake_cards[card].at;
    parts = parts < 1 ? 1 : parts;
    int64_t free_at = atomic_load(&fake_live->free_at_ns[at]), start, end;
    int from;
    do {
        wait_for_others(p, free_at);
        sort(p->free_ns);
        from = choose(p->free_ns, ready_ns, parts);
        start = p->free_ns[from + parts - 1] > ready_ns ? p->free_ns[from + parts - 1] : ready_ns;
        if (start > now_ns + SLICE_NS)
            return -1;
        end = start + duration_ns > free_at ? start + duration_ns : free_at;
    } while (!atomic_compare_exchange_weak(&fake_live->free_at_ns[at], &free_at, end));
    for (int i = 0; i < parts; i++)
        p->free_ns[from + i] = start + duration_ns;
    p->held_until_ns = end;
    const int64_t fresh = start > free_at ? start : free_at;
    atomic_fetch_add(&fake_self()->busy_ns[at], end > fresh ? end - fresh : 0);
    atomic_store(&fake_self()->turn_ns[at], end);
    return start;
}
