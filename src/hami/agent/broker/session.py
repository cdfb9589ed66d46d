"""One connected process: what it said, what it has been told, and when it has lost its welcome.

    hello -> welcome, limits -> usage ... | limits ... -> end-of-file

Sans-IO but for its socket's send: the clock is passed in. A client is judged by its own deeds only,
and whatever it does costs the broker one short packet at a time.
"""

import socket
from collections.abc import Callable
from enum import StrEnum

from hami.agent.broker.allowance import Allowance
from hami.agent.broker.door import Peer
from hami.model.errors import Malformed
from hami.wire.broker import MAX_BYTES, Hello, Limit, Message, Refused, Seen, Usage, decode, encode

HELLO_WITHIN_S = 5.0
RATE, BURST = 40.0, 200.0
"""Packets a second, and at once. The library sends one a second for each of at most 16 cards."""
RATED_S = 0.2
"""Of reports closer together no rate is reckoned: the agent was slow to read them."""
UNREAD_S = 30.0
"""How long a client may leave a full socket unread."""
Send = Callable[[bytes, int | None], bool]
"""Sends a packet, with a descriptor or without. False: the socket is full. Raises OSError."""


class End(StrEnum):
    """Why a session ended."""

    LEFT = "left"
    GARBAGE = "garbage"
    FLOOD = "flood"
    SILENT = "silent"
    DEAF = "deaf"
    FULL = "full"
    REPLACED = "replaced"
    GRANT_GONE = "grant_gone"
    FAULT = "fault"


class Offence(Exception):
    """The client has to go."""

    def __init__(self, end: End, text: str) -> None:
        self.end = end
        super().__init__(text)


class Session:
    """`key` is the grant it connected to. Times are seconds of the broker's clock."""

    def __init__(self, key: str, peer: Peer, send: Send, now: float, number: int = -1) -> None:
        self.key = key
        self.peer = peer
        self.number = number
        """Of its descriptor."""
        self.since = now
        self.hello: Hello | None = None
        self.usage: dict[int, Usage] = {}
        self.rates: dict[int, float] = {}
        """GPU seconds a second, by card, between the last two reports."""
        self.heard: dict[int, float] = {}
        """When that was reckoned."""
        self.seen: dict[int, Seen] = {}
        """What it was told last of what NVML shows."""
        self.mixed: dict[str, bool] = {}
        """Likewise, by card: whether tenants of the other priority use it."""
        self.members: dict[str, int] = {}
        """Places on the pages of turns, by card."""
        self._send = send
        self._charged_ns: dict[int, int] = {}
        """GPU time as told then."""
        self._packets = Allowance(RATE, BURST, now)
        self._waiting: dict[tuple[str, int], tuple[Message, int | None]] = {}
        self._stuck_since: float | None = None

    # what it says

    def receive(self, packet: bytes, now: float) -> Message:
        """The message of a packet. Raises `Offence`."""
        if not self._packets.take(now):
            raise Offence(End.FLOOD, f"more than {RATE:.0f} packets a second")
        if len(packet) > MAX_BYTES:
            raise Offence(End.GARBAGE, f"a packet of more than {MAX_BYTES} bytes")
        try:
            message = decode(packet, from_library=True)
        except Malformed as fault:
            raise Offence(End.GARBAGE, str(fault)) from fault
        match message:
            case Hello():
                if self.hello is not None:
                    raise Offence(End.GARBAGE, "a second hello")
                self.hello = message
            case Usage():
                if self.hello is None:
                    raise Offence(End.GARBAGE, "usage before hello")
                self._note(message, now)
        return message

    def _note(self, usage: Usage, now: float) -> None:
        """The last word always counts: who then rests says nothing more. Only for a rate two may be too close."""
        card, last = usage.card, self._charged_ns.get(usage.card)
        took = now - self.heard.get(card, self.since)
        self.usage[card] = usage
        if last is not None and took <= RATED_S:
            return
        if last is not None:
            self.rates[card] = max(0.0, (usage.busy_ns - last) / 1e9 / took)
        self.heard[card], self._charged_ns[card] = now, usage.busy_ns

    # what it is told

    def tell(self, message: Message, descriptor: int | None = None, *, now: float) -> None:
        """Now, or when it reads again; then only the latest of each kind and card. Raises OSError."""
        slot = (type(message).__name__, message.card if isinstance(message, Limit | Seen) else 0)
        if self._waiting or not self._send(encode(message), descriptor):
            self._waiting[slot] = (message, descriptor)
            self._stuck_since = now if self._stuck_since is None else self._stuck_since

    def flush(self) -> None:
        """Send what has waited. Raises OSError."""
        for slot, (message, descriptor) in list(self._waiting.items()):
            if not self._send(encode(message), descriptor):
                return
            del self._waiting[slot]
        self._stuck_since = None

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def overdue(self, now: float) -> Offence | None:
        """What it has failed to do in time."""
        if self.hello is None and now - self.since > HELLO_WITHIN_S:
            return Offence(End.SILENT, f"no hello within {HELLO_WITHIN_S:.0f} s")
        if self._stuck_since is not None and now - self._stuck_since > UNREAD_S:
            return Offence(End.DEAF, f"has read nothing for {UNREAD_S:.0f} s")
        return None

    def refuse(self, message: Refused) -> None:
        """A last word, if there is room for it."""
        try:
            self._send(encode(message), None)
        except OSError:
            return


def sender(connection: socket.socket) -> Send:
    """How packets leave through a socket."""

    def send(packet: bytes, descriptor: int | None) -> bool:
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            if descriptor is None:
                connection.send(packet, flags)
            else:
                socket.send_fds(connection, [packet], [descriptor], flags)
        except BlockingIOError:
            return False
        return True

    return send
