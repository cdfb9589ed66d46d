"""What the broker and the library in a container say to each other: fixed messages, little-endian, one a packet.

`native/include/hami/broker_wire.h` is the same in C; `native/tests/broker.vectors` holds both to it, and
`docs/reference/broker.md` explains it. Decoding refuses whatever is not exactly right. Knows no sockets.
"""

import struct
from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

from hami.model.errors import Bug, Malformed
from hami.wire.policy import MAX_CARDS, CorePolicy

VERSION = 1
HEADER = struct.Struct("<HHI")
"""Version, kind, size of the whole message."""
UNLIMITED = (1 << 63) - 1
MOST_BYTES = 1 << 50
"""No card has a pebibyte: more is a lie or a fault."""
MOST_PID = (1 << 31) - 1
"""As the kernel's type has it."""
MEMBERS = 256
"""Processes that can take turns on one card."""
TENANTS = 64
"""Containers that can take turns on one card."""
_CORE_POLICIES = (CorePolicy.DEFAULT, CorePolicy.FORCE, CorePolicy.DISABLE)


class Kind(IntEnum):
    """Below 16 from the library, from 16 on from the broker."""

    HELLO = 1
    USAGE = 2
    WELCOME = 16
    LIMIT = 17
    SEEN = 18
    REFUSED = 19


class Reason(IntEnum):
    """Why the broker does not take a client."""

    FULL = 1
    VERSION = 2
    PROTOCOL = 3
    NO_POLICY = 4


class Hello(Struct, frozen=True):
    """A process registers. Everything in it is for people: who it is, the kernel has told."""

    pid: int
    """In its own pid namespace."""
    pid_namespace: int
    start_ticks: int
    program: str
    """At most 31 letters; what is not printable ASCII arrives as ``?``."""


class Usage(Struct, frozen=True):
    """What a process holds of one card, and has used."""

    card: int
    """Number of the card, as in `Limit`."""
    held_bytes: tuple[int, ...]
    """Seven kinds, in the order of `KINDS`."""
    busy_ns: int
    """GPU time charged since the process began."""
    launched_ns: int
    """CLOCK_MONOTONIC of its last launch; 0: none that was paid for."""
    waited_ns: int
    """Time its launches have waited for the limit since the process began."""
    refused: int
    """Reservations refused in its container."""


KINDS = ("buffer", "pool", "vmm", "array", "graph", "context", "unattributed")
"""What memory is for, as `hami_kind` of the library has it."""


class Welcome(Struct, frozen=True):
    """The process is known. As many `Limit` messages follow as it says."""

    host_pid: int
    cards: int
    session: int


class Limit(Struct, frozen=True):
    """What the container may use of one card from now on."""

    card: int
    generation: int
    """Rises with each change; the messages of one change carry the same."""
    limit_bytes: int
    """`UNLIMITED`: the whole card."""
    core_percent: int
    """1 to 100; 100: no limit."""
    core_policy: CorePolicy
    priority: int
    uuid: str
    member: int = -1
    """Place on the card's page of turns, -1 where there is none. The page's descriptor comes with the message."""
    tenant: int = 0
    last: bool = False
    """The last message of this change."""
    mixed: bool = False
    """Tenants of another priority use the card now."""


class Seen(Struct, frozen=True):
    """What NVML shows outside of the container, where pids are the host's."""

    card: int
    own_bytes: int
    """Of this process; -1: NVML does not show it."""
    others: int
    """Processes of other containers, or of none, on the card."""


class Refused(Struct, frozen=True):
    """The broker hangs up, and says why; at most 119 letters."""

    reason: Reason
    text: str


Message = Hello | Usage | Welcome | Limit | Seen | Refused

_LAST, _MIXED = 1, 2
_HELLO = struct.Struct("<HHI I I Q Q 32s")
_USAGE = struct.Struct("<HHI I I 7q q q q Q")
_WELCOME = struct.Struct("<HHI I I Q")
_LIMIT = struct.Struct("<HHI I I Q q I I I i I I 96s")
_SEEN = struct.Struct("<HHI I I q")
_REFUSED = struct.Struct("<HHI I I 120s")
SIZES = {
    Kind.HELLO: _HELLO.size,
    Kind.USAGE: _USAGE.size,
    Kind.WELCOME: _WELCOME.size,
    Kind.LIMIT: _LIMIT.size,
    Kind.SEEN: _SEEN.size,
    Kind.REFUSED: _REFUSED.size,
}
MAX_BYTES = max(SIZES.values())
_FROM_LIBRARY = frozenset((Kind.HELLO, Kind.USAGE))


def encode(message: Message) -> bytes:
    """The packet. Raises Bug for values that do not fit: they are ours."""
    try:
        return _encode(message)
    except (struct.error, UnicodeEncodeError) as fault:
        raise Bug(f"{message} does not fit its packet: {fault}") from fault


def _encode(message: Message) -> bytes:
    match message:
        case Hello(pid, space, start, program):
            return _pack(_HELLO, Kind.HELLO, pid, 0, space, start, _fill(program, 32))
        case Usage(card, held, busy, launched, waited, refused):
            return _pack(_USAGE, Kind.USAGE, card, 0, *held, busy, launched, waited, refused)
        case Welcome(host_pid, cards, session):
            return _pack(_WELCOME, Kind.WELCOME, host_pid, cards, session)
        case Seen(card, own, others):
            return _pack(_SEEN, Kind.SEEN, card, others, own)
        case Refused(reason, text):
            return _pack(_REFUSED, Kind.REFUSED, reason, 0, _fill(text, 120))
        case Limit():
            flags = message.last * _LAST | message.mixed * _MIXED
            return _pack(
                _LIMIT,
                Kind.LIMIT,
                message.card,
                flags,
                message.generation,
                message.limit_bytes,
                message.core_percent,
                _CORE_POLICIES.index(message.core_policy),
                message.priority,
                message.member,
                message.tenant,
                0,
                _fill(message.uuid, 96),
            )


def _pack(form: struct.Struct, kind: Kind, *values: object) -> bytes:
    return form.pack(VERSION, kind, form.size, *values)


def _fill(text: str, size: int) -> bytes:
    """NUL-terminated; what has no place is cut."""
    return text.encode("ascii", "replace")[: size - 1]


def decode(packet: bytes, *, from_library: bool) -> Message:
    """The message of one packet from that side. Raises Malformed, which names the field."""
    if len(packet) < HEADER.size:
        raise Malformed("$.size", len(packet), f"at least {HEADER.size} bytes")
    version, number, size = HEADER.unpack_from(packet)
    if version != VERSION:
        raise Malformed("$.version", version, str(VERSION))
    try:
        kind = Kind(number)
    except ValueError:
        raise Malformed("$.kind", number, "a kind of message") from None
    if (kind in _FROM_LIBRARY) != from_library:
        raise Malformed("$.kind", kind.name, "a kind that this side sends")
    if not size == len(packet) == SIZES[kind]:
        raise Malformed("$.size", (size, len(packet)), f"{SIZES[kind]} bytes for {kind.name}")
    return _READERS[kind](packet)


def _hello(packet: bytes) -> Hello:
    _, _, _, pid, spare, space, start, program = _HELLO.unpack(packet)
    _zero(spare)
    return Hello(_within(pid, "$.pid", 0, MOST_PID), space, start, _text(program, "$.program"))


def _usage(packet: bytes) -> Usage:
    _, _, _, card, spare, *rest = _USAGE.unpack(packet)
    _zero(spare)
    *held, busy, launched, waited, refused = rest
    for index, value in enumerate(held):
        _within(value, f"$.held_bytes[{index}]", 0, MOST_BYTES)
    _within(sum(held), "$.held_bytes", 0, MOST_BYTES)
    for value, path in ((busy, "$.busy_ns"), (launched, "$.launched_ns"), (waited, "$.waited_ns")):
        _within(value, path, 0, UNLIMITED)
    return Usage(_card(card), tuple(held), busy, launched, waited, refused)


def _welcome(packet: bytes) -> Welcome:
    _, _, _, host_pid, cards, session = _WELCOME.unpack(packet)
    return Welcome(host_pid, _within(cards, "$.cards", 1, MAX_CARDS), session)


def _limit(packet: bytes) -> Limit:
    _, _, _, card, flags, generation, limit, percent, policy, priority, member, tenant, spare, uuid = _LIMIT.unpack(
        packet
    )
    _zero(spare)
    _within(flags, "$.flags", 0, _LAST | _MIXED)
    return Limit(
        card=_card(card),
        generation=generation,
        limit_bytes=_within(limit, "$.limit_bytes", 1, UNLIMITED),
        core_percent=_within(percent, "$.core_percent", 1, 100),
        core_policy=_CORE_POLICIES[_within(policy, "$.core_policy", 0, 2)],
        priority=_within(priority, "$.priority", 0, 1),
        uuid=_text(uuid, "$.uuid"),
        member=_within(member, "$.member", -1, MEMBERS - 1),
        tenant=_within(tenant, "$.tenant", 0, TENANTS - 1),
        last=bool(flags & _LAST),
        mixed=bool(flags & _MIXED),
    )


def _seen(packet: bytes) -> Seen:
    _, _, _, card, others, own = _SEEN.unpack(packet)
    return Seen(_card(card), _within(own, "$.own_bytes", -1, MOST_BYTES), others)


def _refused(packet: bytes) -> Refused:
    _, _, _, reason, spare, text = _REFUSED.unpack(packet)
    _zero(spare)
    return Refused(Reason(_within(reason, "$.reason", min(Reason), max(Reason))), _text(text, "$.text"))


_READERS: dict[Kind, Callable[[bytes], Message]] = {
    Kind.HELLO: _hello,
    Kind.USAGE: _usage,
    Kind.WELCOME: _welcome,
    Kind.LIMIT: _limit,
    Kind.SEEN: _seen,
    Kind.REFUSED: _refused,
}


def _card(number: int) -> int:
    return _within(number, "$.card", 0, MAX_CARDS - 1)


def _zero(spare: int) -> None:
    _within(spare, "$.spare", 0, 0)


def _within(value: int, path: str, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Malformed(path, value, f"{low} to {high}")
    return value


def _text(field: bytes, path: str) -> str:
    """Printable ASCII, a NUL, and nothing but NULs after it."""
    text, end, rest = field.partition(b"\0")
    if not end or rest.strip(b"\0") or any(not 0x20 <= letter <= 0x7E for letter in text):
        raise Malformed(path, field, "printable ASCII that ends with a NUL, then NULs")
    return text.decode("ascii")
