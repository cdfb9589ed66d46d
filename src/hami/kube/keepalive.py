"""Sockets that notice a dead peer by themselves, in half a minute instead of fifteen."""

import socket

from aiohappyeyeballs import AddrInfoType

IDLE_S = 15
INTERVAL_S = 5
PROBES = 3


def keepalive_socket(address: AddrInfoType) -> socket.socket:
    """A TCP socket for aiohttp's connector.

    A watch may be silent for a minute and its peer's machine may have vanished
    without a word: keepalive finds that out while idle, TCP_USER_TIMEOUT while sending.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", INTERVAL_S),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", (IDLE_S + INTERVAL_S * PROBES) * 1000),
    ):
        if hasattr(socket, option):  # some are Linux's own
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
