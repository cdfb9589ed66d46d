"""The agent's memory on disk: which device ids were given to which container, and what was answered.

Two phases, as NVIDIA's DRA driver does it: an entry is written as started before anything
is made on the host, and as completed before kubelet gets its answer. So after a crash a
started entry was never answered and may be undone; a completed one may have been.
"""

import hashlib
import os
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from hami.agent.files import replace_file, sync_folder
from hami.model.errors import HamiError
from hami.model.grant import Grant


class State(Enum):
    STARTED = "PrepareStarted"
    COMPLETED = "PrepareCompleted"


class Seat(Struct, frozen=True, dict=True):
    """One answer to one `Allocate`: the grant, and how far it has come.

    The key names its folder on the host and is part of what kubelet was told, so it
    stays when verification finds that another pod sits here.
    """

    key: str
    grant: Grant
    state: State
    verified: bool = False
    """Whether kubelet has confirmed that this pod holds these ids."""
    broken: str = ""
    """Why this seat may not be used by anybody; set when its answer fits another pod than the one that got it."""
    unsettled: bool = False
    """Whether its policy file may say something else than its slices: a resize was begun and not written to its end."""

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(self.grant.kubelet_ids)


class _File(Struct, frozen=True):
    version: Literal[1]
    checksum: str
    seats: Raw


class Unreadable(HamiError):
    """The checkpoint is damaged. What it held is to be rebuilt from kubelet and the API server."""


class Checkpoint:
    """One file, replaced as a whole: a reader, after any crash, finds the old state or the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[Seat, ...]:
        """What was saved last; nothing where no file is. Raises `Unreadable`."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as fault:
            raise Unreadable(f"{self.path}: {fault}") from fault
        try:
            file = msgspec.json.decode(text, type=_File)
            if _checksum(bytes(file.seats)) != file.checksum:
                raise Unreadable(f"{self.path}: the checksum is wrong")
            return msgspec.json.decode(file.seats, type=tuple[Seat, ...])
        except msgspec.MsgspecError as fault:
            raise Unreadable(f"{self.path}: {fault}") from fault

    def save(self, seats: tuple[Seat, ...], *, durable: bool = False) -> None:
        """For whoever reads from now on; a power cut may undo it until `keep`, or not if it is `durable`.

        Raises OSError: the old state holds, but where the last step of a durable one failed.
        """
        body = msgspec.json.encode(seats)
        text = b'{"version":1,"checksum":"%s","seats":%s}' % (_checksum(body).encode(), body)
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self.path, text, 0o600, durable=durable)

    def keep(self) -> None:
        """Return when what was saved last is on the disk. Raises OSError."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def set_aside(self) -> Path:
        """Keep a damaged file for a person to look at, out of the way."""
        aside = self.path.with_name(self.path.name + ".damaged")
        self.path.replace(aside)
        return aside


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
