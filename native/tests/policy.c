/*
 * What the library reads of policy files, a line a file, in the words of the format: for comparison with the agent's reader.
 * `policy FILE...`, each of one policy or of several with a byte 0 after each.
 */
#include <inttypes.h>
#include <string.h>

#include "check.h"
#include "limits/policy.h"

static void tell(const char *text, size_t size)
{
    static const char *const core[] = {"default", "force", "disable"};
    static hami_policy p;
    char why[200];
    if (!hami_policy_parse(text, size, &p, why, sizeof why)) {
        printf("refused\n");
        return;
    }
    printf("%s %s %d %d %d %s %s", p.container, core[p.core_policy], p.priority, p.fail_open, p.strict, p.ledger,
           p.broker[0] == '\0' ? "-" : p.broker);
    for (int i = 0; i < p.card_count; i++) {
        const int64_t mib = p.cards[i].limit_bytes == HAMI_UNLIMITED ? -1 : p.cards[i].limit_bytes >> 20;
        printf(" %s %" PRId64 " %d", p.cards[i].uuid, mib, p.cards[i].core_percent);
    }
    printf("\n");
}

int main(int count, char **files)
{
    static char text[1 << 24];
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(files[i], "rbe");
        CHECK(file != NULL);
        const size_t size = fread(text, 1, sizeof text, file);
        fclose(file);
        for (const char *at = text, *end; at < text + size; at = end + 1) {
            end = memchr(at, 0, (size_t)(text + size - at));
            CHECK(end != NULL);
            tell(at, (size_t)(end - at));
        }
    }
    return 0;
}
