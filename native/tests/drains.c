/*
 * A thread that drains its process's turn and comes back when that is no longer its business: buy.c, with the card and the time played.
 *
 * A handler of the program's may keep it for as long as it likes. Meanwhile another thread drains in its place, the turn goes to another tenant and
 * comes again. It is not the late one's to hand on: the card has our work on it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "pay/buy.c"

enum { COST_NS = 100 * 1000, MEMBER_BITS = 16 };

hami_state_t hami_state;
_Atomic int hami_throttling = 1;
hami_hot_t hami_hot;
hami_uses hami_use;

static hami_turns_page page;
static __thread bool late;
static _Atomic bool kept, let_go, bought;

bool hami_fence(hami_card *card, CUstream stream, hami_fence_kind kind)
{
    return card != NULL && stream == NULL && kind == HAMI_FENCE_TURN;
}

bool hami_fence_passed(hami_card *card, hami_fence_kind kind)
{
    if (late)
        atomic_store(&kept, true);
    while (late && !atomic_load(&let_go))
        usleep(20);
    return card != NULL && kind == HAMI_FENCE_TURN;
}

int hami_relaxed_begin(void)
{
    return 0;
}

void hami_relaxed_end(int before)
{
    (void)before;
}

void hami_samples_read(void)
{
}

void hami_calibrate(hami_card *card)
{
    (void)card;
}

/* ---- time, which passes when main lets it ---- */

static _Atomic int64_t now_ns = (int64_t)1000 * 1000 * 1000 * 1000;

int64_t hami_now_ns(void)
{
    return atomic_load(&now_ns);
}

void hami_sleep_until_ns(int64_t deadline_ns)
{
    while (hami_now_ns() < deadline_ns)
        usleep(20);
}

void hami_sleep_coarse_ns(int64_t duration_ns)
{
    hami_sleep_until_ns(hami_now_ns() + duration_ns);
}

void hami_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    const int64_t until = hami_now_ns() + timeout_ns;
    while (atomic_load(word) == expected && hami_now_ns() < until)
        usleep(20);
}

void hami_futex_wake_shared(_Atomic uint32_t *word)
{
    (void)word;
}

/* ---- what happens ---- */

static void *launch(void *is_late)
{
    hami_card *card = &hami_state.cards[0];
    late = is_late != NULL;
    hami_buy(card, hami_purse_spend(&card->purse, COST_NS), 0, NULL);
    if (!late)
        atomic_store(&bought, true);
    return NULL;
}

/* A tenth of a millisecond, in which both tenants want more than they have; the other is the second member, and has had less. */
static void pass(void)
{
    for (int t = 0; t < 2; t++)
        atomic_store(&page.full_ns[t], hami_now_ns());
    atomic_store(&page.asked_ns[1], hami_now_ns());
    atomic_fetch_add(&now_ns, 100 * 1000);
    usleep(100);
}

static int holder(void)
{
    return (int)(atomic_load(&page.holder) & 0xffff) - 1;
}

static void hand_back(void)
{
    const uint64_t before = atomic_load(&page.holder);
    atomic_store(&page.until_ns, hami_now_ns() + HAMI_CLAIM_NS);
    atomic_store(&page.holder, ((before >> MEMBER_BITS) + 1) << MEMBER_BITS | 1);
    atomic_fetch_add(&page.handed, 1);
    hami_futex_wake_shared(&page.handed);
}

int main(void)
{
    pthread_t one, other;
    hami_card *card = &hami_state.cards[0];
    hami_pacer *p = &card->pacer;
    hami_state.ledger = calloc(1, sizeof *hami_state.ledger);
    pthread_mutex_init(&card->pacing, NULL);
    atomic_store(&card->percent, 50);
    atomic_store(&page.holder, (uint64_t)1 << MEMBER_BITS | 1);
    atomic_store(&page.tenant_of[1], 1);
    atomic_store(&page.virtual_ns[0], 1000);
    *p = (hami_pacer){.page = &page, .weight = 50, .word = atomic_load(&page.holder), .queue_end_ns = hami_now_ns()};
    pass();
    CHECK(pthread_create(&one, NULL, launch, &late) == 0);
    while (!atomic_load(&kept))
        pass();
    CHECK(pthread_create(&other, NULL, launch, NULL) == 0);
    while (holder() == 0)
        pass();
    CHECK(holder() == 1);
    hand_back();
    while (!atomic_load(&bought))
        pass();
    pthread_join(other, NULL);
    CHECK(holder() == 0 && p->word == atomic_load(&page.holder) && p->had.turns == 1);
    const int64_t queued_until = p->queue_end_ns;
    atomic_store(&let_go, true);
    pthread_join(one, NULL);
    CHECK(holder() == 0 && p->word == atomic_load(&page.holder) && p->queue_end_ns == queued_until);
    printf("still ours\n");
    return 0;
}
