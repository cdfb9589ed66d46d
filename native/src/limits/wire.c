/* See wire.h. */
#include "limits/wire.h"

#include <string.h>

enum { MAX_CARDS = 16, MEMBERS = 256, TENANTS = 64, REASONS = 4 };
#define MOST_BYTES ((int64_t)1 << 50)

/* Printable ASCII, a NUL, then nothing but NULs. */
static bool is_text(const char *field, size_t size)
{
    size_t i = 0;
    for (; i < size && field[i] != '\0'; i++) {
        if (field[i] < 0x20 || field[i] > 0x7e)
            return false;
    }
    if (i == size)
        return false;
    for (; i < size; i++) {
        if (field[i] != '\0')
            return false;
    }
    return true;
}

static bool good_limit(const hami_wire_limit *l)
{
    return l->card < MAX_CARDS && (l->flags & ~(uint32_t)(HAMI_LIMIT_LAST | HAMI_LIMIT_MIXED)) == 0 && l->limit >= 1 &&
           l->core_percent >= 1 && l->core_percent <= 100 && l->core_policy <= 2 && l->priority <= 1 && l->member >= -1 &&
           l->member < MEMBERS && l->tenant < TENANTS && l->spare == 0 && is_text(l->uuid, sizeof l->uuid);
}

bool hami_wire_good(const hami_packet *p, size_t size)
{
    if (size < sizeof p->header || p->header.version != HAMI_WIRE_VERSION || p->header.size != size)
        return false;
    switch (p->header.kind) {
    case HAMI_WELCOME:
        return size == sizeof p->welcome && p->welcome.cards >= 1 && p->welcome.cards <= MAX_CARDS;
    case HAMI_LIMIT:
        return size == sizeof p->limit && good_limit(&p->limit);
    case HAMI_SEEN:
        return size == sizeof p->seen && p->seen.card < MAX_CARDS && p->seen.own_bytes >= -1 && p->seen.own_bytes <= MOST_BYTES;
    case HAMI_REFUSED:
        return size == sizeof p->refused && p->refused.reason >= 1 && p->refused.reason <= REASONS && p->refused.spare == 0 &&
               is_text(p->refused.text, sizeof p->refused.text);
    default:
        return false;
    }
}
