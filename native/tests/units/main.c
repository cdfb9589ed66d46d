/* units parse | map | budget | cost | overlap | sleeps | fuzz ROUNDS SEED | storm LEDGER PROCESSES THREADS ROUNDS | slots LEDGER | claims LEDGER | loans LEDGER | kills LEDGER COUNT | halted LEDGER | wakes LEDGER | alone LEDGER | jumps LEDGER. See units.h. */
#include <string.h>

#include "units.h"

static uint64_t state = 88172645463325252u;
uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
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
    } else if (strcmp(what, "overlap") == 0) {
        overlap();
    } else if (strcmp(what, "sleeps") == 0) {
        sleeps();
    } else if (strcmp(what, "fuzz") == 0 && count > 3) {
        state ^= strtoull(words[3], NULL, 10) * 0x9e3779b97f4a7c15u;
        fuzz(atol(words[2]));
    } else if (strcmp(what, "storm") == 0 && count > 5) {
        storm(words[2], atoi(words[3]), atoi(words[4]), atol(words[5]));
    } else if (strcmp(what, "slots") == 0 && count > 2) {
        slots(words[2]);
    } else if (strcmp(what, "claims") == 0 && count > 2) {
        claims(words[2]);
    } else if (strcmp(what, "loans") == 0 && count > 2) {
        loans(words[2]);
    } else if (strcmp(what, "kills") == 0 && count > 3) {
        kills(words[2], atoi(words[3]));
    } else if (strcmp(what, "halted") == 0 && count > 2) {
        halted(words[2]);
    } else if (strcmp(what, "wakes") == 0 && count > 2) {
        wakes(words[2]);
    } else if (strcmp(what, "alone") == 0 && count > 2) {
        alone(words[2]);
    } else if (strcmp(what, "jumps") == 0 && count > 2) {
        jumps(words[2]);
    } else {
        return 2;
    }
    return 0;
}
