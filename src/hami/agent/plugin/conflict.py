"""Is somebody else offering this node's cards? Then kubelet may hand out whole cards past our limits.

Two signs: another plugin's socket in kubelet's folder whose devices name our cards (asked of
the plugin itself), and a node whose allocatable is not what we offer. Both are reported; for
the second, the resource is claimed again, since kubelet asks whoever registered last.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import grpc.aio
from msgspec import Struct

from hami.agent.kubelet import rpc
from hami.agent.plugin.registration import Identity, identity
from hami.model.card import Card
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import LIST_AND_WATCH

log = logging.getLogger(__name__)
ANSWER_S = 3.0
LASTING = 3
"""Looks in a row that must find the node's count wrong."""
CLAIM_S = 60.0
"""Between two claims of the resource."""


class Rival(Struct, frozen=True):
    """Another plugin, and why it is one."""

    socket: str
    why: str


class Sockets:
    """The other plugins' sockets; each is asked once for what it offers."""

    def __init__(self, folder: str, own: str) -> None:
        self._folder = Path(folder)
        self._own = {own, "kubelet.sock"}
        self._asked: dict[str, tuple[Identity | None, frozenset[str] | None]] = {}

    async def rivals(self, cards: Iterable[Card]) -> list[Rival]:
        """Plugins that offer cards of ours, by their ids or, where they do not answer, by their name."""
        ids = {str(card.id) for card in cards}
        found = []
        for name in self._names():
            offered = await self._offered(name)
            if offered is None:
                continue
            shared = sorted(card for card in ids if any(one.startswith(card) for one in offered))
            if shared:
                found.append(Rival(name, f"offers {len(shared)} of our cards, {shared[0]} among them"))
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(
                path.name for path in self._folder.iterdir() if path.name not in self._own and path.is_socket()
            )
        except OSError:
            return []

    async def _offered(self, name: str) -> frozenset[str] | None:
        """Device ids of a plugin; None while it does not answer (a socket left behind by a dead one)."""
        now = identity(self._folder / name)
        known = self._asked.get(name)
        if known is not None and known[0] == now and known[1] is not None:
            return known[1]
        offered = await _first_list(str(self._folder / name))
        self._asked[name] = (now, offered)
        return offered


class Watch:
    """Looks every now and then, and tells people when something has changed."""

    def __init__(
        self,
        sockets: Sockets,
        cards: Callable[[], Iterable[Card]],
        allocatable: Callable[[], Awaitable[str | None]],
        tell: Callable[[str, str], None],
        claim: Callable[[], None],
        *,
        interval: float,
    ) -> None:
        """`allocatable` reads the node's count of our resource; `tell` takes an event's reason and message;
        `claim` registers with kubelet once more.
        """
        self._sockets = sockets
        self._cards = cards
        self._allocatable = allocatable
        self._tell = tell
        self._claim = claim
        self._interval = interval
        self._told: set[str] = set()
        self._differed = 0
        self.rivals: list[Rival] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.once()

    async def once(self) -> None:
        self.rivals = await self._sockets.rivals(self._cards())
        problems = {
            f"device plugin {rival.socket} {rival.why}: kubelet may hand out whole cards past HAMi's limits; "
            "remove that plugin from this node"
            for rival in self.rivals
        }
        differs = allocatable_differs(await self._allocatable(), self._cards())
        # kubelet tells the API server of a change within ten seconds or so: only what lasts is worth a word.
        self._differed = self._differed + 1 if differs else 0
        if differs and self._differed >= LASTING:
            problems.add(f"{differs}: another plugin may have taken the resource over; it is claimed again")
            self._claim()
            # kubelet counts every ten seconds; claiming more often would only feed a quarrel.
            self._differed = -int(CLAIM_S / self._interval)
        for problem in sorted(problems - self._told):
            log.error("conflict", extra={"why": problem})
            self._tell("ConflictingDevicePlugin", problem)
        if self._told and not problems:
            log.info("conflict is over")
        self._told = problems


async def _first_list(socket: str) -> frozenset[str] | None:
    channel = rpc.channel(socket)
    try:
        async with asyncio.timeout(ANSWER_S):
            async for answer in rpc.listen(channel, LIST_AND_WATCH, messages.Empty()):
                return frozenset(device.ID for device in answer.devices)
    except (grpc.aio.AioRpcError, TimeoutError):
        return None
    finally:
        await channel.close()
    return None


def allocatable_differs(allocatable: str | None, cards: Iterable[Card]) -> str | None:
    """Why the node's allocatable count is not ours; None when it is, or where kubelet has not counted yet."""
    offered = sum(card.slots for card in cards if card.healthy)
    if allocatable is None or allocatable == str(offered):
        return None
    return f"the node's allocatable is {allocatable}, we offer {offered}"
