"""A node's register annotation: the cards it offers, byte for byte HAMi v2.10's.

JSON with zero values left out (so an absent ``health`` is an unhealthy card).
The older colon text of 7 or 9 fields, still written by some agents, is read too.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from hami.model.card import Card, MigProfile, Placement
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family
from hami.wire.faults import decoded

_MAX_INT32 = 2**31 - 1
Count = Annotated[int, Meta(ge=0, le=_MAX_INT32)]


class _Placement(Struct, frozen=True):
    # Written always: HAMi leaves zeros out of the card, not out of a placement.
    start: Count = 0
    size: Count = 0


class _MigProfile(Struct, frozen=True, rename="camel"):
    name: str = ""
    memory_mb: Count = field(name="memoryMB", default=0)
    core: Count = 0
    slice_count: Count = 0
    placements: list[_Placement] | None = None


class _Registered(Struct, frozen=True, omit_defaults=True):
    """Field order is the order on the wire."""

    id: str = ""
    index: Count = 0
    count: Count = 0
    devmem: Count = 0
    devcore: Count = 0
    type: str = ""
    numa: int = 0
    mode: str = ""
    health: bool = False
    mig_profiles: list[_MigProfile] | None = field(name="migProfiles", default=None)


class _Scored(Struct, frozen=True):
    uuid: str = ""
    score: dict[str, int] | None = None


_decode_cards = msgspec.json.Decoder(list[_Registered]).decode
_decode_scores = msgspec.json.Decoder(list[_Scored]).decode


def encode(cards: tuple[Card, ...] | list[Card]) -> str:
    """The annotation of these cards, by index, so that an unchanged node gives an unchanged text."""
    ordered = sorted(cards, key=lambda card: (card.index, card.id))
    return msgspec.json.encode([_registered(card) for card in ordered]).decode()


def decode(text: str, family: Family, path: str = "$") -> tuple[Card, ...]:
    """The cards of an annotation, sorted by index. Raises `Malformed` with the entry at fault.

    One bad card spoils the register: half of a node's truth is not to be planned on.
    """
    is_json = text.lstrip().startswith("[")
    listed = decoded(_decode_cards, text, path) if is_json else _decode_colon_text(text, path)
    cards = [_card(one, family, f"{path}[{index}]") for index, one in enumerate(listed)]
    seen: set[CardId] = set()
    for index, card in enumerate(cards):
        if card.id in seen:
            raise Malformed(f"{path}[{index}].id", card.id, "an id that no other card of the node has")
        seen.add(card.id)
    return tuple(sorted(cards, key=lambda card: (card.index, card.id)))


def decode_scores(text: str, path: str = "$") -> dict[CardId, dict[CardId, int]]:
    """Pair scores from ``hami.io/node-nvidia-score``: what the links between two cards are worth."""
    listed = decoded(_decode_scores, text, path)
    return {CardId(one.uuid): {CardId(other): score for other, score in (one.score or {}).items()} for one in listed}


def encode_scores(scores: Mapping[CardId, Mapping[CardId, int]]) -> str:
    """The inverse of `decode_scores`, in the order given."""
    return msgspec.json.encode(
        [_Scored(card, {str(other): score for other, score in pairs.items()}) for card, pairs in scores.items()]
    ).decode()


def _registered(card: Card) -> _Registered:
    return _Registered(
        id=card.id,
        index=card.index,
        count=card.slots,
        devmem=card.mem_mib,
        devcore=card.core_percent,
        type=card.model,
        numa=card.numa,
        mode=card.mode,
        health=card.healthy,
        mig_profiles=[_written_profile(profile) for profile in card.mig_profiles] or None,
    )


def _written_profile(profile: MigProfile) -> _MigProfile:
    places = [_Placement(place.start, place.size) for place in profile.placements]
    return _MigProfile(profile.name, profile.mem_mib, profile.core_percent, profile.slices, places)


def _card(one: _Registered, family: Family, path: str) -> Card:
    if not one.id:
        raise Malformed(f"{path}.id", one.id, "the card's id as its driver gives it")
    return Card(
        id=CardId(one.id),
        family=family,
        model=one.type,
        index=one.index,
        slots=one.count,
        mem_mib=one.devmem,
        core_percent=one.devcore,
        numa=one.numa,
        mode=one.mode,
        healthy=one.health,
        mig_profiles=tuple(_read_profile(profile) for profile in one.mig_profiles or ()),
    )


def _read_profile(profile: _MigProfile) -> MigProfile:
    places = tuple(Placement(place.start, place.size) for place in profile.placements or ())
    return MigProfile(profile.name, profile.memory_mb, profile.core, profile.slice_count, places)


def _decode_colon_text(text: str, path: str) -> list[_Registered]:
    """``UUID,count,mem,core,type,numa,health[,index,mode]:`` repeated; seven fields are index 0, hami-core."""
    if ":" not in text:
        raise Malformed(path, text, "a JSON list of cards, or records that end with ':'")
    records = [record.strip() for record in text.split(":")]
    return [_colon_record(record, f"{path}[{index}]") for index, record in enumerate(filter(None, records))]


def _colon_record(record: str, path: str) -> _Registered:
    fields = [one.strip() for one in record.split(",")]
    if len(fields) not in (7, 9):
        raise Malformed(path, record, "UUID,count,mem,core,type,numa,health[,index,mode]")
    health = _GO_BOOLS.get(fields[6])
    if health is None:
        raise Malformed(f"{path}.health", fields[6], "true or false")
    return _Registered(
        id=fields[0],
        count=_number(fields[1], f"{path}.count"),
        devmem=_number(fields[2], f"{path}.mem"),
        devcore=_number(fields[3], f"{path}.core"),
        type=fields[4],
        numa=_number(fields[5], f"{path}.numa", low=-_MAX_INT32),
        health=health,
        index=_number(fields[7], f"{path}.index") if len(fields) == 9 else 0,
        mode=fields[8] if len(fields) == 9 else "hami-core",
    )


_GO_BOOLS = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), False
)


def _number(text: str, path: str, low: int = 0) -> int:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 10 and low <= int(text) <= _MAX_INT32:
        return int(text)
    raise Malformed(path, text, f"a whole number from {low} to {_MAX_INT32}")
