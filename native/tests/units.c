/*
 * The library's parts by themselves: parsers, map, ledger, budget, prices. Run under ASan, UBSan and TSan by
 * tests/native/test_vgpu_units.py; time here is a number, so that minutes of GPU time pass in milliseconds.
 *
 *   units parse | map | budget | cost | fuzz ROUNDS SEED | storm LEDGER PROCESSES THREADS ROUNDS | kills LEDGER COUNT
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "budget.h"
#include "cost.h"
#include "ledger.h"
#include "map.h"
#include "policy.h"
#include "prim/prim.h"

#define CHECK(what)                                                       \
    do {                                                                  \
        if (!(what)) {                                                    \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #what);     \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

static uint64_t state = 88172645463325252u;
static uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- parsers ---- */

static const char good[] = "version 1\ncontainer a/b\ncore_policy force\npriority 0\nfail closed\nstrict 1\nledger /l\nbroker /b\n"
                           "card GPU-1 mem_mib 8000 core_percent 30\ncard GPU-2 mem_mib all core_percent 0\nend\n";

static const char *variables[16][2];
static const char *variable(const char *name)
{
    for (int i = 0; variables[i][0] != NULL; i++) {
        if (strcmp(variables[i][0], name) == 0)
            return variables[i][1];
    }
    return NULL;
}

static bool refused(const char *text)
{
    hami_policy policy;
    char why[200];
    return !hami_policy_parse(text, strlen(text), &policy, why, sizeof why) && why[0] != '\0';
}

static void parse(void)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } sizes[] = {{"0", 0}, {"4096", 4096}, {"4g", 4ll << 30}, {"4G", 4ll << 30}, {"4GiB", 4ll << 30}, {"4gb", 4ll << 30},
                 {"8000m", 8000ll << 20}, {"1t", 1ll << 40}, {"512KiB", 512 << 10}, {"12b", 12}, {"", -1}, {"-1", -1}, {"1.5g", -1},
                 {"0x10", -1}, {"4 g", -1}, {"4gg", -1}, {"g", -1}, {"99999999999999g", -1}, {"9223372036854775808", -1},
                 {"4i", -1}, {"4g ", -1}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        CHECK(hami_parse_size(sizes[i].text) == sizes[i].bytes);
    hami_policy p;
    char why[200] = "";
    CHECK(hami_policy_parse(good, strlen(good), &p, why, sizeof why));
    CHECK(p.from_file && p.core_policy == HAMI_CORE_FORCE && p.priority == 0 && p.strict && !p.fail_open && p.card_count == 2);
    CHECK(strcmp(p.cards[0].uuid, "GPU-1") == 0 && p.cards[0].limit_bytes == 8000ll << 20 && p.cards[0].core_percent == 30);
    CHECK(p.cards[1].limit_bytes == HAMI_UNLIMITED && p.cards[1].core_percent == 100);
    /* Cut anywhere: never half obeyed. */
    for (size_t length = 0; length < strlen(good); length++)
        CHECK(!hami_policy_parse(good, length, &p, why, sizeof why));
    CHECK(refused("version 2\ncontainer a\ncard G mem_mib 1 core_percent 1\nend\n"));
    CHECK(refused("version 1\ncontainer a\ncard G mem_mib 0 core_percent 1\nend\n"));
    CHECK(refused("version 1\ncontainer a\ncard G mem_mib 1 core_percent 101\nend\n"));
    CHECK(refused("version 1\ncontainer a\ncard G mem_mib 1 core_percent 1\ncard G mem_mib 1 core_percent 1\nend\n"));
    CHECK(refused("version 1\ncontainer a\nnew 1\ncard G mem_mib 1 core_percent 1\nend\n"));
    CHECK(refused("version 1\ncontainer a\npriority 0\npriority 1\ncard G mem_mib 1 core_percent 1\nend\n"));
    CHECK(refused("version 1\ncontainer a\ncard G mem_mib 1 core_percent 1\nend\ncard H mem_mib 1 core_percent 1\n"));
    CHECK(refused("container a\nversion 1\ncard G mem_mib 1 core_percent 1\nend\n"));
    CHECK(!refused("version 1\ncontainer a\ncard G mem_mib 1 core_percent 1\nend\n"));
    variables[0][0] = "CUDA_DEVICE_MEMORY_LIMIT", variables[0][1] = "4g";
    variables[1][0] = "CUDA_DEVICE_MEMORY_LIMIT_1", variables[1][1] = "8g";
    variables[2][0] = "CUDA_DEVICE_SM_LIMIT", variables[2][1] = "30";
    CHECK(hami_policy_from_env(variable, 7, &p, why, sizeof why));
    CHECK(!p.off && p.cards[0].limit_bytes == 4ll << 30 && p.cards[1].limit_bytes == 8ll << 30 && p.cards[15].core_percent == 30);
    CHECK(strcmp(p.ledger, "/tmp/hami-vgpu-7") == 0 && p.priority == 1 && p.core_policy == HAMI_CORE_DEFAULT);
    variables[2][1] = "50m"; /* once parsed as a size, and so as no limit */
    CHECK(!hami_policy_from_env(variable, 7, &p, why, sizeof why));
    variables[2][1] = "30";
    variables[0][1] = "-1g";
    CHECK(!hami_policy_from_env(variable, 7, &p, why, sizeof why));
    variables[0][0] = NULL;
    CHECK(hami_policy_from_env(variable, 7, &p, why, sizeof why) && p.off); /* nothing asked: the library steps aside */
}

static void fuzz(long rounds)
{
    char text[2048], why[200];
    hami_policy p;
    long taken = 0;
    for (long round = 0; round < rounds; round++) {
        size_t length = sizeof good - 1;
        memcpy(text, good, length);
        for (uint64_t edits = 1 + dice() % 6; edits > 0; edits--) {
            const size_t at = (size_t)(dice() % length);
            switch (dice() % 4) {
            case 0: text[at] = (char)dice(); break;
            case 1: text[at] = "0123456789 \n-"[dice() % 13]; break;
            case 2: /* a piece twice */
                if (length < 1500) {
                    const size_t size = (size_t)(dice() % (length - at)) + 1;
                    memmove(text + at + size, text + at, length - at);
                    length += size;
                }
                break;
            default: /* a piece less */
                if (length > 40) {
                    const size_t size = (size_t)(dice() % 20) % (length - at);
                    memmove(text + at, text + at + size, length - at - size);
                    length -= size;
                }
            }
        }
        if (!hami_policy_parse(text, length, &p, why, sizeof why))
            continue;
        taken++;
        /* What is accepted is within its bounds, whatever was in the text. */
        CHECK(p.card_count >= 1 && p.card_count <= HAMI_MAX_CARDS && p.priority >= 0 && p.priority <= 1);
        for (int i = 0; i < p.card_count; i++)
            CHECK(p.cards[i].limit_bytes > 0 && p.cards[i].core_percent >= 1 && p.cards[i].core_percent <= 100);
        CHECK(memchr(p.ledger, 0, sizeof p.ledger) != NULL && p.ledger[0] == '/');
    }
    printf("%ld rounds, %ld accepted\n", rounds, taken);
}

/* ---- map, against a plain list ---- */

static void map(void)
{
    enum { KEYS = 700 };
    static int64_t list[KEYS];
    hami_map m = HAMI_MAP_INIT;
    hami_entry e;
    memset(list, 0xff, sizeof list);
    for (int i = 0; i < 400000; i++) {
        const uint64_t k = dice() % KEYS, key = (k + 1) << 21; /* as addresses are */
        if (dice() % 2) {
            list[k] = (int64_t)(dice() % 1000);
            CHECK(hami_map_put(&m, (hami_entry){.key = key, .bytes = list[k], .tag = k % 7}));
        } else {
            const bool there = hami_map_get(&m, key, dice() % 2, &e);
            CHECK(there == (list[k] >= 0) && (!there || e.bytes == list[k]));
            if (!hami_map_get(&m, key, false, &e))
                list[k] = -1;
        }
    }
    int with_tag = 0;
    for (int k = 0; k < KEYS; k++)
        with_tag += list[k] >= 0 && k % 7 == 3;
    for (; with_tag > 0; with_tag--)
        CHECK(hami_map_take_tag(&m, 3, &e) && e.tag == 3);
    CHECK(!hami_map_take_tag(&m, 3, &e));
    CHECK(!hami_map_put(&m, (hami_entry){.key = 0}));
    free(m.entries);
}

/* ---- budget: a program that launches whenever it may, on a card that is always fast enough ---- */

static double share(int percent, int64_t kernel_ns, int64_t host_ns, int64_t seconds)
{
    _Atomic int64_t paid = 0;
    hami_purse purse = {0};
    int64_t now = 1000000000000, used = 0;
    const int64_t from = now + 1000000000, until = from + seconds * 1000000000;
    int64_t card_free = now;
    while (now < until) {
        int64_t need = hami_purse_spend(&purse, kernel_ns);
        while (need > 0) {
            const int64_t again = hami_budget_buy(&paid, &purse, need, percent, HAMI_BURST_NS, now);
            if (again == 0)
                break;
            now = again;
        }
        now += host_ns;
        card_free = (card_free > now ? card_free : now) + kernel_ns;
        if (card_free > now + 2000000000)
            now = card_free - 2000000000; /* a full queue */
        if (now >= from)
            used += kernel_ns;
    }
    return 100.0 * (double)used / (double)(until - from);
}

static void budget(void)
{
    static const int limits[] = {5, 20, 50, 80, 95};
    static const int64_t kernels[] = {2000, 10000, 100000, 1000000, 20000000, 50000000, 500000000};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) {
            const double got = share(limits[l], kernels[k], 1000, 60);
            const double slack = kernels[k] > 100000000 ? 2.0 : 0.2; /* one kernel is a lot of 60 s */
            if (got < limits[l] - slack || got > limits[l] + slack) {
                printf("%lld ns at %d: %.2f\n", (long long)kernels[k], limits[l], got);
                exit(1);
            }
        }
    }
    /* Bound by its host at 40 %: untouched by a limit of 50, held by one of 20. */
    CHECK(share(50, 8000, 20000, 20) > 39.5 && share(20, 8000, 20000, 20) < 20.2);
    /* Idle time is not saved up beyond the burst. */
    _Atomic int64_t paid = 0;
    hami_purse purse = {0};
    CHECK(hami_budget_buy(&paid, &purse, 1000000, 50, HAMI_BURST_NS, 5000000000) == 0);
    CHECK(paid >= 5000000000 - HAMI_BURST_NS);
    /* Back from a clock of the past: what a killed process left behind is at most one launch. */
    CHECK(hami_budget_buy(&paid, &purse, 1000000, 50, HAMI_BURST_NS, 9000000000) == 0);
}

/* ---- prices ---- */

/* Of a key whose length varies, and becomes five times as long. */
static double charged_of_used(hami_cost *c, uint32_t most)
{
    int64_t used = 0, charged = 0, price = c->price_ns;
    uint32_t left = 0;
    for (int i = 0; i < 500000; i++) {
        const int64_t length = (int64_t[]){2000, 8000, 20000}[dice() % 3] * (i > 250000 ? 5 : 1);
        used += length;
        if (left > 0) {
            left--;
            charged += price;
            continue;
        }
        price = c->price_ns;
        charged += price;
        uint32_t run = most;
        const uint32_t number = hami_cost_due(c, price, &run);
        left = run;
        CHECK(number == 0 || run == 0);
        if (number != 0)
            charged += hami_cost_learn(c, number, length, c->charged_ns, HAMI_COST_ALONE);
    }
    return (double)charged / (double)used;
}

static int samples_of(hami_cost *c, int64_t length, int launches)
{
    int samples = 0;
    for (int i = 0; i < launches; i++) {
        uint32_t run = 0;
        const uint32_t number = hami_cost_due(c, c->price_ns, &run);
        samples += number != 0;
        if (number != 0)
            hami_cost_learn(c, number, length, c->charged_ns, HAMI_COST_ALONE);
    }
    return samples;
}

/*
 * Threads that launch before there is a price, while the first launch is measured with theirs beside it: what was charged for none of them is not
 * given back, and in the end all is charged that was used.
 */
static void first_launches_of_threads(hami_cost *c)
{
    int64_t charged = 0;
    uint32_t none = 0;
    for (int i = 0; i < 2000; i++)
        hami_cost_due(c, 0, &none);
    charged += hami_cost_learn(c, 1, 1900000, c->charged_ns, HAMI_COST_CROWDED);
    const int64_t price = c->price_ns;
    charged += price;
    hami_cost_due(c, price, &none);
    charged += hami_cost_learn(c, 2001, 20000, c->charged_ns, HAMI_COST_CROWDED);
    CHECK(charged == 2000 * (int64_t)20000 + 1900000);
    hami_cost_return(c, 20000, 7);
    CHECK(c->launches == 1994 && c->charged_ns == price - 7 * 20000);
}

static void cost(void)
{
    static hami_cost table[HAMI_COST_KEYS];
    hami_cost *c = hami_cost_find(table, hami_cost_key(0x1234, 1, 0));
    CHECK(c != NULL && c == hami_cost_find(table, hami_cost_key(0x1234, 1, 0)));
    CHECK(c != hami_cost_find(table, hami_cost_key(0x1234, 2, 0)) && c != hami_cost_find(table, hami_cost_key(0x1234, 1, 1)));
    /* What is charged in the end is what was used, though one launch in hundreds is looked at, lengths vary tenfold and runs are counted ahead. */
    for (uint32_t most = 0; most <= 64; most += 64) {
        c = hami_cost_find(table, hami_cost_key(0x1235, most, 0));
        CHECK(charged_of_used(c, most) < 1.03 && charged_of_used(c, most) > 0.97);
    }
    /* One that never varies is looked at ever more seldom, but never is more than 20 ms of it unseen. */
    c = hami_cost_find(table, hami_cost_key(0x1236, 1, 0));
    CHECK(samples_of(c, 2000, 1000000) < 600);
    c = hami_cost_find(table, hami_cost_key(0x1237, 1, 0));
    CHECK(samples_of(c, 200000, 100000) > 100000 / 200);
    /* A neighbour's slices in one sample of four change the price of a long kernel little. */
    uint32_t none = 0;
    c = hami_cost_find(table, hami_cost_key(0x77, 1, 0));
    for (int i = 0; i < 2000; i++)
        hami_cost_learn(c, hami_cost_due(c, 0, &none) + (uint32_t)i, 1000000 + (dice() % 4 == 0 ? 2000000 : 0), 0, HAMI_COST_SHARED);
    CHECK(c->price_ns > 990000 && c->price_ns < 1100000);
    /* A neighbour that gets into one sample in ten, the first included, though it was our turn: no more is charged, and no more owed. */
    c = hami_cost_find(table, hami_cost_key(0x78, 1, 0));
    int64_t charged = 0, owed = 0;
    for (uint32_t i = 0; i < 300; i++) {
        charged += i == 0 ? 0 : 100 * c->price_ns;
        owed += hami_cost_learn(c, 1 + i * 100, i % 10 == 0 ? 5100000 : 100000, charged, HAMI_COST_OURS);
    }
    CHECK(c->price_ns > 95000 && c->price_ns < 105000);
    CHECK(charged + owed > 29900 * (int64_t)99000 && charged + owed < 29900 * (int64_t)101000 + 5100000);
    /* One sample never charges more than 100 ms for the past. */
    c = hami_cost_find(table, hami_cost_key(0x79, 1, 0));
    for (uint32_t i = 1; i < 20; i++)
        hami_cost_learn(c, i, 1000000, i * 1000000, HAMI_COST_ALONE);
    CHECK(hami_cost_learn(c, 5000, 3000000, 5000 * (int64_t)1000000, HAMI_COST_ALONE) == 100 * 1000 * 1000);
    first_launches_of_threads(hami_cost_find(table, hami_cost_key(0x7a, 1, 0)));
    /* A full neighbourhood says so instead of looping. */
    for (uint64_t i = 0; i < 3 * HAMI_COST_KEYS; i++)
        hami_cost_find(table, hami_cost_key(i, 9, 0));
}

/* ---- ledger ---- */

static hami_ledger *ledger;
static int slot;
static long storm_rounds;
#define LIMIT ((int64_t)4 << 30)

static int64_t slots_sum(int card)
{
    int64_t sum = 0;
    for (int i = 0; i < HAMI_SLOTS; i++) {
        for (int kind = 0; kind < HAMI_KINDS; kind++)
            sum += atomic_load(&ledger->slots[i].pid) == 0 ? 0 : ledger->slots[i].cards[card].held[kind];
    }
    return sum;
}

static void *storm_thread(void *unused)
{
    uint64_t mine = (uint64_t)(uintptr_t)&mine ^ (uint64_t)getpid() << 32;
    int64_t held[8] = {0};
    for (long i = 0; i < storm_rounds; i++) {
        mine = mine * 6364136223846793005u + 1442695040888963407u;
        const int at = (int)(mine >> 40 & 7);
        if (held[at] == 0) {
            const int64_t bytes = (int64_t)(1 + (mine >> 33) % 512) << 20;
            if (hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, bytes, LIMIT))
                held[at] = bytes;
        } else {
            hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, held[at]);
            held[at] = 0;
        }
        const int64_t now = hami_ledger_held(ledger, 0);
        CHECK(now >= 0 && now <= LIMIT);
    }
    for (int at = 0; at < 8; at++)
        hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, held[at]);
    return unused;
}

static void threads(int count)
{
    pthread_t running[64];
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&running[i], NULL, storm_thread, NULL) == 0);
    for (int i = 0; i < count; i++)
        pthread_join(running[i], NULL);
}

static void open_ledger(const char *path)
{
    const int error = hami_ledger_open(path, &ledger, &slot);
    if (error != 0) {
        printf("ledger: %s\n", strerror(-error));
        exit(1);
    }
    CHECK(hami_ledger_card_index(ledger, "GPU-storm", LIMIT, 50) == 0);
}

static void storm(const char *path, int processes, int thread_count)
{
    for (int i = 0; i < processes; i++) {
        if (fork() == 0) {
            open_ledger(path);
            threads(thread_count);
            _exit(0);
        }
    }
    int status = 0, failed = 0;
    while (wait(&status) > 0)
        failed += status != 0;
    CHECK(failed == 0);
    open_ledger(path);
    hami_ledger_reap(ledger);
    CHECK(hami_ledger_held(ledger, 0) == 0 && slots_sum(0) == 0 && ledger->cards[0].peak <= LIMIT);
}

/* Victims that reserve and release as fast as they can are killed anywhere; nothing may be lost, nobody may wait. */
static void kills(const char *path, int count)
{
    enum { AT_ONCE = 4 };
    pid_t victims[AT_ONCE] = {0};
    int64_t slowest = 0;
    storm_rounds = 1000000000;
    open_ledger(path);
    for (int i = 0; i < count; i++) {
        pid_t *victim = &victims[i % AT_ONCE];
        if (*victim != 0) {
            kill(*victim, SIGKILL);
            waitpid(*victim, NULL, 0);
        }
        *victim = fork();
        if (*victim == 0) {
            open_ledger(path);
            storm_thread(NULL);
            _exit(0);
        }
        const struct timespec nap = {.tv_nsec = (long)(dice() % 400000)};
        nanosleep(&nap, NULL);
        const int64_t from = hami_now_ns();
        if (hami_ledger_reserve(ledger, slot, 0, HAMI_BUFFER, 1 << 20, INT64_MAX / 2))
            hami_ledger_release(ledger, slot, 0, HAMI_BUFFER, 1 << 20);
        const int64_t took = hami_now_ns() - from;
        slowest = took > slowest ? took : slowest;
    }
    for (int i = 0; i < AT_ONCE; i++) {
        kill(victims[i], SIGKILL);
        waitpid(victims[i], NULL, 0);
    }
    hami_ledger_reap(ledger);
    CHECK(hami_ledger_held(ledger, 0) == 0 && slots_sum(0) == 0);
    CHECK(slowest < 1000000000);
    printf("%d kills, 0 bytes lost, longest wait %.1f ms\n", count, (double)slowest / 1e6);
}

int main(int count, char **words)
{
    const char *what = count > 1 ? words[1] : "";
    if (strcmp(what, "parse") == 0) {
        parse();
    } else if (strcmp(what, "map") == 0) {
        map();
    } else if (strcmp(what, "budget") == 0) {
        budget();
    } else if (strcmp(what, "cost") == 0) {
        cost();
    } else if (strcmp(what, "fuzz") == 0 && count > 3) {
        state ^= strtoull(words[3], NULL, 10) * 0x9e3779b97f4a7c15u;
        fuzz(atol(words[2]));
    } else if (strcmp(what, "storm") == 0 && count > 5) {
        storm_rounds = atol(words[5]);
        storm(words[2], atoi(words[3]), atoi(words[4]));
    } else if (strcmp(what, "kills") == 0 && count > 3) {
        kills(words[2], atoi(words[3]));
    } else {
        return 2;
    }
    return 0;
}
