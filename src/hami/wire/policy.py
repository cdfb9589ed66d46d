"""The policy file: what a sliced container may use, as the preloaded library reads it.

The agent writes it on the host (root-owned) and mounts it read-only; `native/src/limits/policy.c` reads
it. `docs/reference/policy-file.md` is the format. Knows nothing of where files lie on the host.
"""

import re
from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from hami.model.errors import Malformed, shorten

POLICY_PATH = "/usr/local/vgpu/policy"
"""Where the library looks, in the container. Its being there switches every limit variable of the environment off."""
LEDGER_PATH = "/usr/local/vgpu/ledger"
"""The container's shared ledger: an empty file of mode 0666 that the agent makes and mounts read-write."""
BROKER_PATH = "/usr/local/vgpu/broker/sock"
"""The broker's socket; its folder is what gets mounted, so that a restarted agent can make it anew."""

MAX_CARDS = 16
MAX_BYTES = 16384
MAX_MEM_MIB = 1 << 30


class CorePolicy(Enum):
    """When `core_percent` holds: always, only while others use the card, or never."""

    DEFAULT = "default"
    FORCE = "force"
    DISABLE = "disable"


class CardLimit(Struct, frozen=True):
    """One card of the container. `mem_mib` None: the whole card. `core_percent` 0 or 100: no compute limit."""

    uuid: str
    mem_mib: int | None
    core_percent: int = 0


class LibraryPolicy(Struct, frozen=True):
    """Everything the library is told; `container` is for people reading logs, ``<pod uid>/<container>``."""

    container: str
    cards: tuple[CardLimit, ...]
    core_policy: CorePolicy = CorePolicy.DEFAULT
    priority: int = 1
    """0 high, 1 low, as `CUDA_TASK_PRIORITY`."""
    fail_open: bool = False
    strict: bool = False
    """Deny driver entry points that the library does not know."""
    ledger: str = LEDGER_PATH
    broker: str | None = None
    """The broker's socket in the container; None where no broker runs."""


def encode(policy: LibraryPolicy) -> str:
    """The file's text. Raises Malformed for what the library would refuse."""
    lines = [
        "version 1",
        f"container {_word(policy.container, '$.container')}",
        f"core_policy {policy.core_policy.value}",
        f"priority {_within(policy.priority, '$.priority', 0, 1)}",
        f"fail {'open' if policy.fail_open else 'closed'}",
        f"strict {int(policy.strict)}",
        f"ledger {_path(policy.ledger, '$.ledger')}",
    ]
    if policy.broker is not None:
        lines.append(f"broker {_path(policy.broker, '$.broker')}")
    lines.extend(_card_lines(policy.cards))
    lines.append("end")
    return "\n".join(lines) + "\n"


def decode(text: str) -> LibraryPolicy:
    """A file's text, as the library reads it: anything that it would refuse is Malformed, by line."""
    found: dict[str, str] = {}
    cards: list[CardLimit] = []
    lines = text.split("\n")
    if len(text) > MAX_BYTES or not text.isascii() or lines.pop() != "" or lines[:1] != ["version 1"]:
        raise Malformed("$", shorten(text, 80), f"lines of ASCII, 'version 1' first, at most {MAX_BYTES} bytes")
    for number, line in enumerate(lines, 1):
        key, _, value = line.partition(" ")
        if key not in _KEYS or "end" in found or (key in found and key != "card"):
            raise Malformed(f"$[line {number}]", line, "one of each key, 'end' last")
        found[key] = value
        if key == "card":
            cards.append(_read_card(value, f"$[line {number}]"))
    if found.get("end") != "" or not found.get("container") or not cards:
        raise Malformed("$", sorted(found), "lines 'container', 'card' and 'end'")
    policy = LibraryPolicy(
        container=found["container"],
        cards=tuple(cards),
        core_policy=CorePolicy(_one_of(found, "core_policy", tuple(each.value for each in CorePolicy), "default")),
        priority=int(_one_of(found, "priority", ("0", "1"), "1")),
        fail_open=_one_of(found, "fail", ("closed", "open"), "closed") == "open",
        strict=_one_of(found, "strict", ("0", "1"), "0") == "1",
        ledger=found.get("ledger", LEDGER_PATH),
        broker=found.get("broker"),
    )
    encode(policy)  # what it refuses is refused here too
    return policy


_KEYS = ("version", "container", "core_policy", "priority", "fail", "strict", "ledger", "broker", "card", "end")
_CARD = re.compile(r"([!-~]{1,95}) mem_mib (all|[0-9]{1,12}) core_percent ([0-9]{1,3})")


def _read_card(value: str, path: str) -> CardLimit:
    match = _CARD.fullmatch(value)
    if match is None:
        raise Malformed(path, value, "card UUID mem_mib MIB core_percent PERCENT")
    uuid, memory, percent = match.groups()
    return CardLimit(uuid, None if memory == "all" else int(memory), int(percent))


def _one_of(found: dict[str, str], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = found.get(key, default)
    if value not in allowed:
        raise Malformed(f"$.{key}", value, " or ".join(allowed))
    return value


def _card_lines(cards: tuple[CardLimit, ...]) -> Iterator[str]:
    if not 1 <= len(cards) <= MAX_CARDS:
        raise Malformed("$.cards", len(cards), f"1 to {MAX_CARDS} cards")
    if len({card.uuid for card in cards}) != len(cards):
        raise Malformed("$.cards", [card.uuid for card in cards], "each card once")
    for index, card in enumerate(cards):
        path = f"$.cards[{index}]"
        uuid = _word(card.uuid, f"{path}.uuid", 95)
        memory = "all" if card.mem_mib is None else _within(card.mem_mib, f"{path}.mem_mib", 1, MAX_MEM_MIB)
        yield f"card {uuid} mem_mib {memory} core_percent {_within(card.core_percent, f'{path}.core_percent', 0, 100)}"


def _within(value: int, path: str, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Malformed(path, value, f"a whole number from {low} to {high}")
    return value


def _word(value: str, path: str, limit: int = 255) -> str:
    if not value or len(value) > limit or any(not "!" <= letter <= "~" for letter in value):
        raise Malformed(path, value, f"1 to {limit} printable ASCII letters without spaces")
    return value


def _path(value: str, path: str) -> str:
    if not value.startswith("/"):
        raise Malformed(path, value, "an absolute path")
    return _word(value, path, 107)
