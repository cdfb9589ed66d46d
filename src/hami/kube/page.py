"""Lists and watch lines: from bytes to objects, one unreadable object hurting nobody else."""

from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw, Struct, field

from hami.model.errors import Malformed
from hami.wire.objects import Metadata


class Object(Protocol):
    """What any narrow type must have, so that it can be followed."""

    @property
    def metadata(self) -> Metadata: ...


T = TypeVar("T")


class Unreadable(Struct, frozen=True):
    """An object that is there but is not of the expected form: who it is, and what is wrong."""

    metadata: Metadata
    problem: str


class Page(Struct, Generic[T]):
    """One answer to a list call."""

    items: list[T]
    version: str
    """The list's resourceVersion: all items are as of this one, and a watch can go on from here."""
    next: str = ""
    """The continue token; empty on the last page."""
    unreadable: tuple[Unreadable, ...] = ()


class ListMetadata(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = field(default="", name="continue")


class _List(Struct, Generic[T]):
    metadata: ListMetadata = ListMetadata()
    items: list[T] | None = None


class _Named(Struct, frozen=True):
    metadata: Metadata = Metadata()


class Frame(Struct, Generic[T]):
    """One line of a watch."""

    type: str
    object: T


_named = msgspec.json.Decoder(_Named)
raw_frames = msgspec.json.Decoder(Frame[Raw])


_decoders: dict[tuple[Any, Any], Any] = {}
"""Making a decoder costs more than decoding a pod; a process has a dozen types."""


def _decoder(shape: Any, type: Any) -> Any:  # noqa: A002
    made = _decoders.get((shape, type))
    if made is None:
        made = _decoders[shape, type] = msgspec.json.Decoder(type if shape is None else shape[type])
    return made


def frame_decoder(type: Any) -> "msgspec.json.Decoder[Frame[Any]]":  # noqa: A002
    """For lines of a watch whose object is of `type`."""
    return cast("msgspec.json.Decoder[Frame[Any]]", _decoder(Frame, type))


def decode_page(answer: bytes, type: type[T], path: str) -> Page[T]:  # noqa: A002
    """A list's answer. Raises `Malformed` when it is no list at all."""
    try:
        listed = _decoder(_List, type).decode(answer)
    except msgspec.MsgspecError:
        return _decode_one_by_one(answer, type, path)
    return Page(listed.items or [], listed.metadata.resource_version, listed.metadata.continue_)


def _decode_one_by_one(answer: bytes, type: type[T], path: str) -> Page[T]:  # noqa: A002
    try:
        listed = _decoder(_List, Raw).decode(answer)
    except msgspec.MsgspecError as fault:
        raise Malformed(f"answer to {path}", answer[:200], f"must be a list: {fault}") from fault
    items: list[T] = []
    unreadable: list[Unreadable] = []
    for raw in listed.items or []:
        found = read(raw, type)
        if isinstance(found, Unreadable):
            unreadable.append(found)
        else:
            items.append(found)
    return Page(items, listed.metadata.resource_version, listed.metadata.continue_, tuple(unreadable))


def read(raw: Raw | bytes, type: type[T]) -> T | Unreadable:  # noqa: A002
    """One object, or who it is and why it cannot be read."""
    try:
        found: T = _decoder(None, type).decode(raw)
    except msgspec.MsgspecError as fault:
        return Unreadable(_metadata(raw), str(fault))
    return found


def _metadata(raw: Raw | bytes) -> Metadata:
    try:
        return _named.decode(raw).metadata
    except msgspec.MsgspecError:
        return Metadata()
