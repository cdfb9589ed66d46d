"""Keeps the doors: opens one for each grant, takes in who knocks, and opens another where the first is no longer found.

A container that knocks too often, or finds no descriptors left, waits at its own door. Knows nothing of what is said.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from hami.agent.broker.door import Door, Peer, found, listen, peer, witness
from hami.agent.broker.place import Place

log = logging.getLogger(__name__)
AT_ONCE = 16
"""Clients taken in at one door before it is others' turn."""
PAUSE_S = 1.0
"""A door that could not take a client in stays shut for so long: no descriptors left."""
MOMENT_S = 0.2
"""And when its container had its share."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
Greet = Callable[[Place, socket.socket, Peer, int | None], None]
"""Takes over a connection, and the descriptor that tells of its process's end."""


class Porter:
    """`clock` is the broker's, seconds."""

    def __init__(self, greet: Greet, clock: Callable[[], float]) -> None:
        self._greet = greet
        self._clock = clock

    def attend(self, place: Place) -> bool:
        """See that the grant's socket is there and ours; True: it was not. Who is connected already is not touched."""
        lost = place.door is not None and not found(place.folder, place.door)
        if lost:
            if place.told.take(self._clock()):  # another agent on the same folder takes it back each second
                log.warning("a container's socket is gone or another's: made anew", extra={"folder": str(place.folder)})
            self.shut(place)
        if place.door is None:
            self._open(place)
        return lost

    def shut(self, place: Place) -> None:
        if place.door is not None:
            asyncio.get_running_loop().remove_reader(place.door.socket.fileno())
            place.door.socket.close()
            place.door = None

    def _open(self, place: Place) -> None:
        try:
            if not place.folder.is_dir():
                return
            place.door = listen(place.folder)
            asyncio.get_running_loop().add_reader(place.door.socket.fileno(), self._take_in, place)
        except OSError as fault:
            if str(fault) != place.shut_because:  # a full or read-only disk: tried each second, told once
                log.error("no socket for a container", extra={"folder": str(place.folder), "why": str(fault)})
            place.shut_because = str(fault)
            if place.door is not None:
                place.door.socket.close()
                place.door = None
            return
        place.shut_because = ""

    def _take_in(self, place: Place) -> None:
        door = place.door
        for _ in range(AT_ONCE):
            if door is None:
                return
            if not place.arrivals.take(self._clock()):
                self._rest(MOMENT_S, place, door)
                return
            try:
                connection, _ = door.socket.accept()
            except BlockingIOError:
                return
            except OSError as fault:
                self._pause(place, door, fault)
                return
            try:
                who = peer(connection)
                handle = witness(who)
            except OSError as fault:
                connection.close()
                if fault.errno in _SCARCE:
                    self._pause(place, door, fault)
                    return
            else:
                self._greet(place, connection, who, handle)

    def _pause(self, place: Place, door: Door, fault: OSError) -> None:
        """Out of descriptors: a door that stays readable would keep the loop turning."""
        if place.told.take(self._clock()):
            log.error("cannot take a client in", extra={"pod": str(place.tenant.pod), "why": str(fault)})
        self._rest(PAUSE_S, place, door)

    def _rest(self, seconds: float, place: Place, door: Door) -> None:
        """Who knocks meanwhile waits."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(door.socket.fileno())

        def again() -> None:
            if place.door is door:
                loop.add_reader(door.socket.fileno(), self._take_in, place)

        loop.call_later(seconds, again)
