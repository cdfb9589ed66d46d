/* Policy file and environment: what is read, what is refused, and edits of it at random. See units.h. */
#include <string.h>

#include "limits/policy.h"
#include "units.h"

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

void parse(void)
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
    /* A seventeenth card is refused, not written past the sixteenth. */
    char many[2048];
    int length = snprintf(many, sizeof many, "version 1\ncontainer a\n");
    for (int i = 0; i < 17; i++)
        length += snprintf(many + length, sizeof many - (size_t)length, "%scard G%d mem_mib 1 core_percent 1\n", "", i);
    snprintf(many + length, sizeof many - (size_t)length, "end\n");
    CHECK(refused(many));
    strcpy(strstr(many, "card G16"), "end\n");
    CHECK(!refused(many));
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

void fuzz(long rounds)
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
