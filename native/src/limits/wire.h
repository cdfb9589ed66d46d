/* Packets from the broker, checked before anything in them is believed. Pure; what the fuzzer runs. */
#ifndef HAMI_WIRE_H
#define HAMI_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "hami/broker_wire.h"

typedef union {
    hami_wire_header header;
    hami_wire_welcome welcome;
    hami_wire_limit limit;
    hami_wire_seen seen;
    hami_wire_refused refused;
    unsigned char bytes[HAMI_WIRE_MAX + 1]; /* one more, so that a packet that is too long shows */
} hami_packet;

/* True when these `size` bytes are one message that a broker sends, every field within its bounds. */
bool hami_wire_good(const hami_packet *packet, size_t size);

#endif
