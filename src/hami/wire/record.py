"""What happened in a cluster, as a file: one JSON object a line, in the order seen (docs/reference/record.md).

The first line is `Start`; then nodes as they register, pods as they arrive, are bound and leave, with the
time of each. Written by `hami record`, replayed by `hami simulate`. Knows no Kubernetes object.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.plan import ContainerSlices
from hami.wire.faults import decoded
from hami.wire.snapshot import NodeEntry, PodEntry, PoliciesEntry

KIND = "hami.io/record"
VERSION = 1


class Start(Struct, frozen=True, tag_field="event", tag="start"):
    """The first line. All times in the file are unix seconds."""

    at: float
    policies: PoliciesEntry = PoliciesEntry()
    version: int = VERSION
    kind: str = KIND


class NodeSeen(Struct, frozen=True, tag_field="event", tag="node"):
    """A node is there, or its cards have changed: it is now as it stands here."""

    at: float
    node: NodeEntry


class NodeGone(Struct, frozen=True, tag_field="event", tag="node-gone"):
    at: float
    name: NodeName


class PodArrived(Struct, frozen=True, tag_field="event", tag="pod"):
    """A pod that asks for cards is there; `pod.created` says since when. One that is bound already has its slices."""

    at: float
    pod: PodEntry


class PodBound(Struct, frozen=True, tag_field="event", tag="bound"):
    """A pod got these slices; told again if its record changes."""

    at: float
    uid: PodUid
    node: NodeName
    slices: tuple[ContainerSlices, ...] = ()


class PodLeft(Struct, frozen=True, tag_field="event", tag="left"):
    """A pod has ended or was deleted; what it held is free."""

    at: float
    uid: PodUid
    why: str = ""
    """``Succeeded``, ``Failed``, ``Deleted``."""


class Synced(Struct, frozen=True, tag_field="event", tag="synced"):
    """All that was there when recording began has been told; what follows has just happened."""

    at: float


Line = Start | NodeSeen | NodeGone | PodArrived | PodBound | PodLeft | Synced

_decode = msgspec.json.Decoder(Line).decode


def encode(line: Line) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(line) + b"\n"


def decode(lines: Iterable[bytes], source: str = "$") -> Iterator[Line]:
    """The lines of a file, one by one. Raises `Malformed` with the line's number.

    A last line that was cut in the middle (the recorder was killed) is left out, as long as it has no newline.
    """
    first = True
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line: Line = decoded(_decode, text, f"{source}:{number}")
        except Malformed:
            if not first and not text.endswith(b"\n"):
                return
            raise
        if first and not isinstance(line, Start):
            raise Malformed(
                f"{source}:{number}", type(line).__name__, f'a first line {{"event":"start","kind":"{KIND}"}}'
            )
        if isinstance(line, Start) and (line.kind, line.version) != (KIND, VERSION):
            raise Malformed(f"{source}:{number}", f"{line.kind} {line.version}", f"{KIND}, version {VERSION}")
        first = False
        yield line
    if first:
        raise Malformed(source, "", "a record: at least its start line; `hami record` writes one")
