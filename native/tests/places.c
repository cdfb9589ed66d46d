/*
 * A thread that waits for its process's turn while the broker takes the place on the page back, as one does that was restarted and has none left: buy.c,
 * with the time played. It has been told to wait by the page that was; when it comes to sleep there is none.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "pay/buy.c"

enum { COST_NS = 100 * 1000 };

hami_state_t hami_state;
_Atomic int hami_throttling = 1;
hami_hot_t hami_hot;
hami_uses hami_use;

static hami_turns_page page;
static bool taken_back;

bool hami_fence(hami_card *card, CUstream stream, hami_fence_kind kind)
{
    (void)card, (void)stream, (void)kind;
    return false;
}

bool hami_fence_passed(hami_card *card, hami_fence_kind kind)
{
    (void)card, (void)kind;
    return true;
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

/* ---- time, which passes by sleep and by looks at the clock ---- */

static int64_t now_ns = (int64_t)1000 * 1000 * 1000 * 1000;

/* As hami_card_pages does, by another thread, as soon as the one that wants a turn lets it. */
static void take_back(hami_card *card)
{
    if (taken_back || pthread_mutex_trylock(&card->pacing) != 0)
        return;
    if (card->pacer.waiting_ns != 0) {
        card->pacer = (hami_pacer){.member = -1, .weight = 50};
        taken_back = true;
    }
    pthread_mutex_unlock(&card->pacing);
}

int64_t hami_now_ns(void)
{
    take_back(&hami_state.cards[0]);
    return now_ns += 1000;
}

void hami_sleep_until_ns(int64_t deadline_ns)
{
    now_ns = deadline_ns > now_ns ? deadline_ns : now_ns;
}

void hami_sleep_coarse_ns(int64_t duration_ns)
{
    now_ns += duration_ns;
}

void hami_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    if (atomic_load(word) == expected)
        now_ns += timeout_ns;
}

void hami_futex_wake_shared(_Atomic uint32_t *word)
{
    (void)word;
}

int main(void)
{
    hami_card *card = &hami_state.cards[0];
    hami_state.ledger = calloc(1, sizeof *hami_state.ledger);
    pthread_mutex_init(&card->pacing, NULL);
    atomic_store(&card->percent, 50);
    atomic_store(&page.holder, 2); /* the other's turn */
    atomic_store(&page.until_ns, now_ns + HAMI_TURN_NS);
    for (int t = 0; t < 2; t++)
        atomic_store(&page.full_ns[t], now_ns);
    card->pacer = (hami_pacer){.page = &page, .weight = 50};
    hami_buy(card, hami_purse_spend(&card->purse, COST_NS), 0, NULL);
    CHECK(taken_back && card->pacer.page == NULL && atomic_load(&card->purse.credit_ns) >= 0);
    free(hami_state.ledger);
    printf("bought\n");
    return 0;
}
