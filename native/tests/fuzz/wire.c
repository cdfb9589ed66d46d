/* Fuzz target: a packet of the broker. What is taken has a known kind, its size, and values within bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "limits/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    hami_packet packet;
    memset(&packet, 0xee, sizeof packet);
    memcpy(&packet, bytes, size < sizeof packet ? size : sizeof packet);
    if (!hami_wire_good(&packet, size))
        return 0;
    must(size == packet.header.size && packet.header.version == HAMI_WIRE_VERSION);
    switch (packet.header.kind) {
    case HAMI_WELCOME:
    case HAMI_SEEN:
        break;
    case HAMI_LIMIT:
        must(packet.limit.card < 16 && packet.limit.core_percent >= 1 && packet.limit.core_percent <= 100);
        must(packet.limit.limit >= 1 && packet.limit.member < 256 && packet.limit.tenant < 64);
        must(memchr(packet.limit.uuid, 0, sizeof packet.limit.uuid) != NULL);
        break;
    case HAMI_REFUSED:
        must(memchr(packet.refused.text, 0, sizeof packet.refused.text) != NULL);
        break;
    default:
        must(false); /* its own kinds never come back */
    }
    return 0;
}
