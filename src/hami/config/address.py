"""Where a program listens, as its options say it."""

from hami.model.errors import Malformed

MOST_PORT = 65535


def address(flag: str, text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``:port``; ``[::1]:80`` for IPv6. Raises Malformed, which names the option."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > MOST_PORT:
        raise Malformed(flag, text, f"host:port or :port, with a port from 0 to {MOST_PORT}")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what ":port" means everywhere
