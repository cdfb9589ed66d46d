"""The grants that have the library, and what each may use now: the policy file of its folder.

It is read anew when it changes. The file is the one truth: whoever changes a limit writes it, and the broker passes
it on: by message to those who have registered, by a copy in the mounted folder to those who only look, as nvidia-smi.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from hami.agent.broker.door import FOLDER
from hami.agent.files import replace_file
from hami.agent.grants.checkpoint import State
from hami.agent.grants.policy import ledger_of, needs_policy
from hami.agent.grants.seats import Seats
from hami.model.ask import PodRef
from hami.model.errors import Malformed
from hami.wire.broker import UNLIMITED, Limit
from hami.wire.policy import MAX_BYTES, CardLimit, LibraryPolicy, decode

log = logging.getLogger(__name__)
MIB = 1 << 20


class Tenant(Struct, frozen=True):
    """One container with a slice. `key` names its folder."""

    key: str
    pod: PodRef
    container: str
    ledger: str = ""
    """Its file on the host; empty: not to be looked at."""


def of_seats(seats: Seats) -> Iterator[Tenant]:
    """Every grant whose container has, or may come to have, the library."""
    for seat in seats:
        if seat.state is State.COMPLETED and needs_policy(seat.grant):
            yield Tenant(seat.key, seat.grant.pod, seat.grant.container, str(ledger_of(seat.grant) or ""))


class PolicyFile:
    """One grant's file and what it said last. A file that cannot be used changes nothing, and is reported once.

    What could not be read or written is tried again: a disk may be full for a while, or descriptors scarce.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "policy"
        self._name = str(self._path)  # looked at several times a second, and a Path makes its text each time
        self._stamp: tuple[int, int, int] | None = None
        self._text = b""
        """As it is to be shown to the container."""
        self._shown = True
        self._told = ""
        """What was reported last."""
        self.policy: LibraryPolicy | None = None
        self.generation = 0

    def refresh(self) -> bool:
        """Read it if it is another one than before. True if it says something else: the container sees that, too."""
        try:
            found = os.stat(self._name)  # noqa: PTH116
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                if not self._shown:
                    self.show()
                return False
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
            self._stamp = stamp
            policy = decode(text.decode("latin-1"))
        except (OSError, Malformed) as fault:
            self._report("a policy cannot be used", fault)
            return False
        self._told = ""
        if policy == self.policy:
            return False
        self.policy = policy
        self.generation += 1
        self._text = text
        self.show()
        return True

    def show(self) -> None:
        """What the container has mounted is the file of its start; the folder beside it is mounted as a folder."""
        if not self._text:
            return
        place = self._folder / FOLDER
        try:
            place.mkdir(mode=0o755, exist_ok=True)
            replace_file(place / "policy", self._text, 0o444, durable=False)
        except OSError as fault:
            self._shown = False
            self._report("a container cannot be shown its policy", fault)
            return
        self._shown = True
        self._told = ""

    def _report(self, what: str, fault: Exception) -> None:
        if str(fault) != self._told:
            log.error(what, extra={"path": str(self._path), "why": str(fault)})
        self._told = str(fault)


def limits(policy: LibraryPolicy, generation: int) -> tuple[Limit, ...]:
    """The messages of a policy, without places on pages."""
    last = len(policy.cards) - 1
    return tuple(
        Limit(
            card=index,
            generation=generation,
            limit_bytes=_bytes(card),
            core_percent=card.core_percent or 100,
            core_policy=policy.core_policy,
            priority=policy.priority,
            uuid=card.uuid,
            last=index == last,
        )
        for index, card in enumerate(policy.cards)
    )


def _bytes(card: CardLimit) -> int:
    return UNLIMITED if card.mem_mib is None else card.mem_mib * MIB
