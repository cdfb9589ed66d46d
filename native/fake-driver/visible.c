/* Which cards a program sees, and in which order: CUDA_VISIBLE_DEVICES. See fake.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

/* FAKE_CUDA_MIG: `UUID CARD MIB`, the one MIG device there is, which a program sees where it names it. */
static bool instance(const char *word, const fake_card *all, int count, fake_card *out)
{
    char uuid[96];
    int card = 0;
    long long mib = 0;
    const char *told = getenv("FAKE_CUDA_MIG");
    if (told == NULL || sscanf(told, "%95s %d %lld", uuid, &card, &mib) != 3 || card >= count || strcmp(uuid, word) != 0)
        return false;
    *out = all[card];
    out->total = mib << 20;
    memcpy(out->card_uuid, out->uuid, sizeof out->card_uuid);
    memcpy(out->uuid, uuid, sizeof out->uuid);
    return true;
}

/* A number, or the beginning of a UUID. */
static bool card_of(const char *word, const fake_card *all, int count, fake_card *out)
{
    char *end;
    const long number = strtol(word, &end, 10);
    for (int i = 0; i < count; i++) {
        const bool named = strncmp(word, "GPU-", 4) == 0 && strncmp(word, all[i].uuid, strlen(word)) == 0;
        if (named || (end != word && *end == '\0' && number == i)) {
            *out = all[i];
            return true;
        }
    }
    return false;
}

void fake_choose_cards(void)
{
    static fake_card all[SIM_LIVE_CARDS];
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    char words[512], *rest = words;
    const int count = fake_card_count;
    if (list == NULL)
        return;
    memcpy(all, fake_cards, sizeof all);
    snprintf(words, sizeof words, "%s", list);
    fake_card_count = 0;
    /* What names no card hides all that follow; where one is a MIG device there is no other. */
    for (char *word = strtok_r(words, ",", &rest); word != NULL && fake_card_count < SIM_LIVE_CARDS; word = strtok_r(NULL, ",", &rest)) {
        fake_card *out = &fake_cards[fake_card_count];
        if (instance(word, all, count, out)) {
            fake_card_count++;
            return;
        }
        if (!card_of(word, all, count, out))
            return;
        fake_card_count++;
    }
}
