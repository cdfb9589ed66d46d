"""The broker itself: doors, sessions, and who is told what, in the agent's event loop.

    seats -> doors    connect -> hello -> welcome, limits    policy changes -> limits    death -> place given back

Registering and reading never wait; a slow or hostile client costs a bounded moment and only itself.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from hami.agent.broker.door import Peer, listen, peer, witness
from hami.agent.broker.place import MOST_SESSIONS, Place
from hami.agent.broker.session import End, Offence, Session, sender
from hami.agent.broker.tenants import Tenant, limits
from hami.agent.broker.turns import Turns
from hami.wire.broker import MAX_BYTES, Hello, Limit, Reason, Refused, Seen, Welcome

log = logging.getLogger(__name__)
ROUND_S = 1.0
GATHER_S = 0.05
"""Grants come in bursts: one round serves all of a moment. A container takes longer than that to start."""
MOST_UNKNOWN = 64
"""Of one grant, connected and without a hello."""
AT_ONCE = 16
"""Packets read from one client, and clients taken in at one door, before it is others' turn."""
DESCRIPTORS = 65536
PAUSE_S = 1.0
"""A door that could not take a client in stays shut for so long: no descriptors left."""
MOMENT_S = 0.2
"""And when its container had its share."""


class Broker:
    """`tenants` are the grants as of now; `folder` says where a grant's files are."""

    def __init__(
        self,
        tenants: Callable[[], Iterable[Tenant]],
        folder: Callable[[str], Path],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._folder = folder
        self._clock = clock
        self._places: dict[str, Place] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._witnesses: dict[int, int] = {}
        """Of the process, by descriptor of its socket."""
        self._turns: dict[str, Turns] = {}
        self._served = 0
        self._kicked = asyncio.Event()
        self.ended: Counter[End] = Counter()
        self.began = clock()

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self._places.values())

    def sessions(self) -> Iterator[Session]:
        """All that have said who they are."""
        return (one for place in self._places.values() for one in place.known())

    def kick(self) -> None:
        """Grants or policies have changed: look now."""
        self._kicked.set()

    async def run(self) -> None:
        """Until cancelled."""
        _allow_descriptors()
        try:
            while True:
                self.round()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._kicked.wait(), ROUND_S)
                    await asyncio.sleep(GATHER_S)
                self._kicked.clear()
        finally:
            self.close()

    def round(self) -> None:
        """1. doors for new grants, none for old ones, 2. changed limits, 3. sessions that outstayed their welcome."""
        tenants = {one.key: one for one in self._tenants()}
        for key in self._places.keys() - tenants.keys():
            self._shut(self._places.pop(key))
        for key, tenant in tenants.items():
            self._attend(key, tenant)
        now = self._clock()
        for place in self.places:
            for session in list(place.sessions.values()):
                offence = session.overdue(now)
                if offence is not None:
                    self._end(place, session, offence.end, str(offence))

    def close(self) -> None:
        """Hang up on everybody. Containers go on under the limits they have."""
        for place in self._places.values():
            self._shut(place)
        self._places.clear()
        for turns in self._turns.values():
            turns.close()
        self._turns.clear()

    # doors

    def _attend(self, key: str, tenant: Tenant) -> None:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(tenant, self._folder(key), self._clock())
        place.tenant = tenant  # an exchanged seat has another container on it
        if place.file.refresh():
            self._tell_limits(place, place.known())
        if place.door is None and place.folder.is_dir():
            try:
                place.door = listen(place.folder)
            except OSError as fault:
                if str(fault) != place.shut_because:  # a full or read-only disk: tried each second, told once
                    log.error("no socket for a container", extra={"folder": str(place.folder), "why": str(fault)})
                place.shut_because = str(fault)
                return
            place.shut_because = ""
            asyncio.get_running_loop().add_reader(place.door.fileno(), self._take_in, place)

    def _shut(self, place: Place) -> None:
        if place.door is not None:
            asyncio.get_running_loop().remove_reader(place.door.fileno())
            place.door.close()
            place.door = None
        for session in list(place.sessions.values()):
            self._end(place, session, End.GRANT_GONE, "its grant is gone, or the agent stops")

    def _take_in(self, place: Place) -> None:
        door = place.door
        for _ in range(AT_ONCE):
            if door is None:
                return
            if not place.arrivals.take(self._clock()):
                self._shut_for(MOMENT_S, place, door)
                return
            try:
                connection, _ = door.accept()
            except BlockingIOError:
                return
            except OSError as fault:
                self._pause(place, door, fault)
                return
            try:
                who = peer(connection)
                handle = witness(who)
            except OSError:
                connection.close()
            else:
                self._greet(place, connection, who, handle)

    def _pause(self, place: Place, door: socket.socket, fault: OSError) -> None:
        """Out of descriptors: a door that stays readable would keep the loop turning."""
        log.error("cannot take a client in", extra={"pod": str(place.tenant.pod), "why": str(fault)})
        self._shut_for(PAUSE_S, place, door)

    def _shut_for(self, seconds: float, place: Place, door: socket.socket) -> None:
        """Who knocks meanwhile waits."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(door.fileno())

        def again() -> None:
            if place.door is door:
                loop.add_reader(door.fileno(), self._take_in, place)

        loop.call_later(seconds, again)

    def _greet(self, place: Place, connection: socket.socket, who: Peer, handle: int | None) -> None:
        """`handle` tells of its death: end-of-file does not where another process has its socket, too."""
        connection.setblocking(False)
        unknown = sum(one.hello is None for one in place.sessions.values())
        number = connection.fileno()
        session = Session(place.tenant.key, who, sender(connection), self._clock(), number)
        if len(place.sessions) >= MOST_SESSIONS or unknown >= MOST_UNKNOWN:
            session.refuse(Refused(Reason.FULL, f"the broker has {len(place.sessions)} processes of this container"))
            connection.close()
            if handle is not None:
                os.close(handle)
            self.ended[End.FULL] += 1
            return
        place.sessions[number] = session
        self._sockets[number] = connection
        if handle is not None:
            self._witnesses[number] = handle
        loop = asyncio.get_running_loop()
        try:
            if handle is not None:
                loop.add_reader(handle, self._end, place, session, End.LEFT)
            loop.add_reader(number, self._read, place, session, connection)
        except OSError as fault:  # the kernel watches only so many
            self._end(place, session, End.FAULT, str(fault))

    # sessions

    def _read(self, place: Place, session: Session, connection: socket.socket) -> None:
        try:
            for _ in range(AT_ONCE):
                if not place.packets.take(self._clock()):
                    self._read_later(place, session, connection)
                    return
                packet = connection.recv(MAX_BYTES + 1)
                if not packet:
                    self._end(place, session, End.LEFT)
                    return
                self._heard(place, session, packet)
        except BlockingIOError:
            return
        except Offence as offence:
            self._end(place, session, offence.end, str(offence))
        except OSError as fault:
            self._end(place, session, _end_of(fault), str(fault))

    def _read_later(self, place: Place, session: Session, connection: socket.socket) -> None:
        """Its container had its share of us: what it says now is read in a moment."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(session.number)

        def again() -> None:
            if place.sessions.get(session.number) is session:
                loop.add_reader(session.number, self._read, place, session, connection)

        loop.call_later(MOMENT_S, again)

    def _heard(self, place: Place, session: Session, packet: bytes) -> None:
        message = session.receive(packet, self._clock())
        if isinstance(message, Hello):
            self._register(place, session)

    def _register(self, place: Place, session: Session) -> None:
        """Welcome a process: it says who it is, and hears what it may use."""
        for other in list(place.sessions.values()):
            if other is not session and other.hello is not None and session.peer.pid == other.peer.pid != 0:
                self._end(place, other, End.REPLACED, "the process connected again")
        policy = place.file.policy
        if policy is None:
            session.refuse(Refused(Reason.NO_POLICY, "the agent cannot read what this container may use"))
            raise Offence(End.FAULT, "its grant has no usable policy")
        self._served += 1
        session.tell(Welcome(session.peer.pid, len(policy.cards), self._served), now=self._clock())
        for card in policy.cards:
            member = self._page(card.uuid).join(place.tenant.key)
            if member >= 0:
                session.members[card.uuid] = member
        self._tell_limits(place, [session])
        self._tell_mixed(place)

    def _tell_limits(self, place: Place, sessions: Iterable[Session]) -> None:
        """Raises nothing: who cannot be told is gone."""
        policy = place.file.policy
        if policy is None:
            return
        for session in list(sessions):
            for limit in limits(policy, place.file.generation):
                try:
                    self._tell_limit(place, session, limit)
                except OSError as fault:
                    self._end(place, session, _end_of(fault), str(fault))
                    break

    def _tell_limit(self, place: Place, session: Session, limit: Limit) -> None:
        member, descriptor = session.members.get(limit.uuid, -1), None
        if member >= 0:
            turns = self._page(limit.uuid)
            limit = replace(limit, member=member, tenant=turns.tenant(place.tenant.key))
            descriptor = turns.descriptor
        session.tell(replace(limit, mixed=self._mixed(limit)), descriptor, now=self._clock())
        self._await_room(place, session)

    def tell_seen(self, place: Place, session: Session, message: Seen) -> None:
        """Told only what it has not heard. Raises nothing: who cannot be told is gone."""
        if session.seen.get(message.card) == message:
            return
        session.seen[message.card] = message
        try:
            session.tell(message, now=self._clock())
            self._await_room(place, session)
        except OSError as fault:
            self._end(place, session, _end_of(fault), str(fault))

    def _await_room(self, place: Place, session: Session) -> None:
        """Its socket is full: go on when it has read."""
        if not session.waiting:
            return
        loop = asyncio.get_running_loop()

        def flush() -> None:
            try:
                session.flush()
            except OSError as fault:
                self._end(place, session, _end_of(fault), str(fault))
            else:
                if not session.waiting:
                    loop.remove_writer(session.number)

        loop.add_writer(session.number, flush)

    def _page(self, uuid: str) -> Turns:
        if uuid not in self._turns:
            self._turns[uuid] = Turns()
        return self._turns[uuid]

    def _mixed(self, limit: Limit) -> bool:
        """Whether the card has tenants of the other priority now."""
        return any(
            place.file.policy is not None
            and place.file.policy.priority != limit.priority
            and any(card.uuid == limit.uuid for card in place.file.policy.cards)
            for place in self._places.values()
            if any(True for _ in place.known())
        )

    def _tell_mixed(self, newcomer: Place) -> None:
        """The first or last process of a tenant may change for others of its cards whether priorities are mixed."""
        own = newcomer.file.policy
        if own is None or len(list(newcomer.known())) > 1:
            return
        cards = {card.uuid for card in newcomer.cards}
        for place in self.places:
            policy = place.file.policy
            if policy is None or policy.priority == own.priority or place is newcomer:
                continue
            if any(card.uuid in cards for card in place.cards):
                self._tell_limits(place, place.known())

    def _end(self, place: Place, session: Session, end: End, why: str = "") -> None:
        number = session.number
        if place.sessions.get(number) is not session:
            return
        del place.sessions[number]
        connection = self._sockets.pop(number)
        loop = asyncio.get_running_loop()
        loop.remove_reader(number)
        loop.remove_writer(number)
        if (handle := self._witnesses.pop(number, None)) is not None:
            loop.remove_reader(handle)
            os.close(handle)
        if end in (End.GARBAGE, End.FLOOD, End.SILENT):
            session.refuse(Refused(Reason.PROTOCOL, why[:119]))
        connection.close()
        self._give_back(place, session)
        self.ended[end] += 1
        if end not in (End.LEFT, End.REPLACED, End.GRANT_GONE):
            self._tell_of(place, session, end, why)

    def _tell_of(self, place: Place, session: Session, end: End, why: str) -> None:
        """A container that goes on and on must not fill the node's disk with what is said about it."""
        if not place.told.take(self._clock()):
            place.untold += 1
            return
        told = {"pod": str(place.tenant.pod), "container": place.tenant.container, "pid": session.peer.pid}
        log.warning("client dismissed", extra={**told, "reason": end.value, "why": why, "untold_before": place.untold})
        place.untold = 0

    def _give_back(self, place: Place, session: Session) -> None:
        for uuid, member in session.members.items():
            self._turns[uuid].leave(member)
        session.members.clear()
        if session.hello is not None and not any(True for _ in place.known()):
            self._tell_mixed(place)


def _allow_descriptors() -> None:
    """A descriptor a client: take as many as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end_of(fault: OSError) -> End:
    """A process that ends with packets unread leaves a reset behind, and no end-of-file."""
    return End.LEFT if isinstance(fault, ConnectionResetError | BrokenPipeError) else End.FAULT
