/*
 * A thread that sees to a group of launches of low priority and comes back when others have done so since: yield.c, with the card and the time played.
 * What it knows of the group's size is of before.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "pay/yield.c"

enum { MILLI = 1000 * 1000 };

hami_hot_t hami_hot;

static int64_t now_ns = (int64_t)1000 * 1000 * MILLI;
static hami_card card = {.group = 4, .grouped = 3, .fence = HAMI_FENCE_LEASH};
static int looks;

int64_t hami_now_ns(void)
{
    return now_ns;
}

void hami_sleep_until_ns(int64_t deadline_ns)
{
    now_ns = deadline_ns;
}

void hami_sleep_coarse_ns(int64_t duration_ns)
{
    now_ns += duration_ns;
}

bool hami_fence(hami_card *of, CUstream stream, hami_fence_kind kind)
{
    return of == &card && stream == NULL && kind != HAMI_FENCE_TURN;
}

/* While the first looks, 3 s pass, and another does what it was to do. */
bool hami_fence_passed(hami_card *of, hami_fence_kind kind)
{
    if (looks++ == 0) {
        now_ns += 3000 * (int64_t)MILLI;
        atomic_store(&card.grouped, 3);
        keep_queue_short(of, NULL);
        CHECK(card.group == 2 && card.fence == HAMI_FENCE_LEASH_TOO);
        now_ns += MILLI / 10;
    }
    return kind != HAMI_FENCE_TURN;
}

int main(void)
{
    card.group_ns = now_ns;
    keep_queue_short(&card, NULL);
    CHECK(card.group == 2 && card.fence == HAMI_FENCE_LEASH_TOO && looks == 2);
    printf("as the other left it\n");
    return 0;
}
