"""The device plugin service that kubelet calls: requests in, answers out, no decision of its own.

Device ids are ``<card>-<slot>``, a slot for each slice that may share the card.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from hami.agent.grants.allocate import AllocationFailed, Allocator
from hami.agent.grants.answer import response
from hami.agent.grants.verify import NotVerified, Verifier
from hami.agent.kubelet.rpc import Stream, Unary
from hami.agent.meters import Meters
from hami.model.card import Card
from hami.model.errors import HamiError
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import (
    ALLOCATE,
    HEALTHY,
    LIST_AND_WATCH,
    OPTIONS,
    PRE_START,
    PREFERRED,
    UNHEALTHY,
    Call,
)

log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class CardList(Protocol):
    """The node's cards, followed (`inventory.Inventory`)."""

    def cards(self) -> tuple[Card, ...]: ...
    def changes(self) -> AsyncIterator[None]: ...


class Plugin:
    """One resource's device plugin."""

    def __init__(
        self, cards: CardList, allocator: Allocator, verifier: Verifier, meters: Meters, *, topology: Callable[[], bool]
    ) -> None:
        self._cards = cards
        self._allocator = allocator
        self._verifier = verifier
        self._meters = meters
        self._topology = topology
        self._streams: set[asyncio.Event] = set()
        self._former: set[asyncio.Event] = set()
        self.dropped = False
        """Whether kubelet had a stream since the last registration and has ended it."""

    @property
    def streams(self) -> int:
        """ListAndWatch calls since the last registration: kubelet has one; none means that it does not know us.

        kubelet leaves earlier ones open when a resource is registered again. They are let be: one that
        ended would make kubelet drop whoever has the resource now.
        """
        return len(self._streams - self._former)

    def registering(self) -> None:
        """Streams from now on are those of a new registration."""
        self._former = set(self._streams)
        self.dropped = False

    def hang_up(self) -> None:
        """End all streams, so that a server that is stopped waits for real work only."""
        for closing in self._streams:
            closing.set()

    def handlers(self) -> Sequence[tuple[Call[Any, Any], Unary | Stream]]:
        return (
            (OPTIONS, self.options),
            (LIST_AND_WATCH, self.list_and_watch),
            (PREFERRED, self.preferred),
            (ALLOCATE, self.allocate),
            (PRE_START, self.pre_start),
        )

    async def options(self, _: messages.Empty, __: Context) -> messages.DevicePluginOptions:
        return options()

    async def list_and_watch(self, _: messages.Empty, __: Context) -> AsyncIterator[messages.ListAndWatchResponse]:
        """The devices at once and after each change. grpc closes this generator when the caller is gone."""
        closing = asyncio.Event()
        self._streams.add(closing)
        try:
            async for _change in _until(closing, self._cards.changes()):
                yield messages.ListAndWatchResponse(devices=devices(self._cards.cards(), topology=self._topology()))
        finally:
            self._streams.discard(closing)
            self.dropped = self.dropped or closing not in self._former
            self._former.discard(closing)

    async def preferred(
        self, request: messages.PreferredAllocationRequest, _: Context
    ) -> messages.PreferredAllocationResponse:
        answers = []
        for one in request.container_requests:
            with self._meters.preference():
                ids = await self._allocator.prefer(
                    frozenset(one.available_deviceIDs), frozenset(one.must_include_deviceIDs), one.allocation_size
                )
            answers.append(messages.ContainerPreferredAllocationResponse(deviceIDs=ids))
        return messages.PreferredAllocationResponse(container_responses=answers)

    async def allocate(self, request: messages.AllocateRequest, context: Context) -> messages.AllocateResponse:
        """kubelet sends one container a call; several are answered in their order."""
        answers = []
        for one in request.container_requests:
            with self._meters.allocation() as outcome:
                try:
                    grant = await self._allocator.allocate(tuple(one.devices_ids))
                except AllocationFailed as fault:
                    outcome(fault.refused.reason)
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"HAMi: {fault}")
                except HamiError as fault:
                    outcome("Fault")
                    await context.abort(grpc.StatusCode.UNAVAILABLE, f"HAMi: {fault}")
            answers.append(response(grant))
        return messages.AllocateResponse(container_responses=answers)

    async def pre_start(
        self, request: messages.PreStartContainerRequest, context: Context
    ) -> messages.PreStartContainerResponse:
        with self._meters.verification() as outcome:
            try:
                await self._verifier.verify(tuple(request.devices_ids))
            except NotVerified as fault:
                outcome("NotVerified")
                log.warning("container does not start", extra={"why": str(fault)})
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"HAMi: {fault}")
        return messages.PreStartContainerResponse()


async def _until(closing: asyncio.Event, changes: AsyncIterator[None]) -> AsyncIterator[None]:
    """`changes`, until `closing` is set."""
    closed = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(changes))
            await asyncio.wait({closed, following}, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                return
            yield following.result()
    finally:
        for waiting in (closed, following):
            if waiting is not None and not waiting.done():
                waiting.cancel()


def options() -> messages.DevicePluginOptions:
    """We choose ids, and look again before each container starts."""
    return messages.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)


def devices(cards: Sequence[Card], *, topology: bool) -> list[messages.Device]:
    """What kubelet may count: every slot of every card, in a steady order."""
    return [
        messages.Device(
            ID=f"{card.id}-{slot}",
            health=HEALTHY if card.healthy else UNHEALTHY,
            topology=messages.TopologyInfo(nodes=[messages.NUMANode(ID=card.numa)]) if topology else None,
        )
        for card in sorted(cards, key=lambda card: (card.index, card.id))
        for slot in range(card.slots)
    ]
