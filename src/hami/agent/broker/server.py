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

from hami.agent.broker import ledgers
from hami.agent.broker.allowance import Allowance
from hami.agent.broker.door import Peer
from hami.agent.broker.place import MOST_SESSIONS, Place
from hami.agent.broker.porter import MOMENT_S, Porter
from hami.agent.broker.session import End, Offence, Session, sender
from hami.agent.broker.tenants import Tenant, limits
from hami.agent.broker.turns import Turns
from hami.wire.broker import MAX_BYTES, Hello, Limit, Reason, Refused, Seen, Welcome

log = logging.getLogger(__name__)
ROUND_S = 1.0
GATHER_S = 0.05
"""Grants come in bursts: one round serves all of a moment. A container takes longer than that to start."""
NEWS = 1.0, 4.0
"""Times a second and at once that tenants hear of others' priorities: who comes and goes must not keep all busy."""
MOST_UNKNOWN = 64
"""Of one grant, connected and without a hello."""
AT_ONCE = 16
"""Packets read from one client before it is others' turn."""
DESCRIPTORS, OWN_DESCRIPTORS, DESCRIPTORS_EACH = 65536, 256, 2
"""Wanted; of these what the rest of the agent needs, however many clients come; and what one client takes."""


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
        self._porter = Porter(self._greet, clock)
        self._places: dict[str, Place] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._witnesses: dict[int, int] = {}
        """Of the process, by descriptor of its socket."""
        self._turns: dict[str, Turns] = {}
        self._descriptors = DESCRIPTORS
        self._served = 0
        self._news = Allowance(*NEWS, clock())
        self._stirred: set[str] = set()
        """Cards whose tenants may have to hear of a change of priorities."""
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
        self._descriptors = _allow_descriptors()
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
        if self._stirred:
            self._spread()
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
        if self._porter.attend(place):
            place.file.show()
        if tenant.ledger and (size := ledgers.cut(tenant.ledger)) and place.told.take(self._clock()):
            told = {"pod": str(tenant.pod), "container": tenant.container, "bytes": size}
            log.warning("a tenant has written into its ledger: it is cut", extra=told)

    def _shut(self, place: Place) -> None:
        self._porter.shut(place)
        for session in list(place.sessions.values()):
            self._end(place, session, End.GRANT_GONE, "its grant is gone, or the agent stops")

    def _greet(self, place: Place, connection: socket.socket, who: Peer, handle: int | None) -> None:
        """`handle` tells of its death: end-of-file does not where another process has its socket, too."""
        connection.setblocking(False)
        unknown = sum(one.hello is None for one in place.sessions.values())
        number = connection.fileno()
        session = Session(place.tenant.key, who, sender(connection), self._clock(), number)
        if len(place.sessions) >= min(MOST_SESSIONS, self._free()) or unknown >= MOST_UNKNOWN:
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

    def _free(self) -> int:
        """Sessions that there are descriptors for; a container may have as many as it leaves to all others together."""
        own = min(OWN_DESCRIPTORS, self._descriptors // 2)
        return (self._descriptors - own) // DESCRIPTORS_EACH - len(self._sockets)

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
        session.mixed[limit.uuid] = mixed = self._mixed(limit)
        session.tell(replace(limit, mixed=mixed), descriptor, now=self._clock())
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
        if not session.waiting or place.sessions.get(session.number) is not session:
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
        if newcomer.file.policy is None or len(list(newcomer.known())) > 1:
            return
        self._stirred.update(card.uuid for card in newcomer.cards)
        if self._news.take(self._clock()):
            self._spread()

    def _spread(self) -> None:
        """Tell those of the cards for whom it is news; what is too much for now, the next round does."""
        cards, self._stirred = self._stirred, set()
        for place in self.places:
            if any(card.uuid in cards for card in place.cards):
                self._tell_limits(place, [one for one in place.known() if self._is_news(place, one)])

    def _is_news(self, place: Place, session: Session) -> bool:
        policy = place.file.policy
        told = session.mixed
        return policy is not None and any(
            told.get(limit.uuid) != self._mixed(limit) for limit in limits(policy, place.file.generation)
        )

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


def _allow_descriptors() -> int:
    """Take as many as we may; how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def _end_of(fault: OSError) -> End:
    """A process that ends with packets unread leaves a reset behind, and no end-of-file."""
    return End.LEFT if isinstance(fault, ConnectionResetError | BrokenPipeError) else End.FAULT
