"""A simulated kubelet's side of device plugins: who has registered, and which devices they list.

As in Kubernetes 1.34: a resource is whose registered last, a plugin whose stream ends offers nothing, and kubelet has
one stream of each. Knows no pods.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hami.agent.kubelet import rpc
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import HEALTHY, LIST_AND_WATCH, OPTIONS, VERSION


class Endpoint:
    """A registered plugin."""

    def __init__(self, channel: grpc.aio.Channel, options: messages.DevicePluginOptions) -> None:
        self.channel = channel
        self.options = options
        self.devices: dict[str, messages.Device] = {}
        self.stopped = False
        self.listening: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> set[str]:
        return set() if self.stopped else {id for id, one in self.devices.items() if one.health == HEALTHY}  # noqa: A001


class Plugins:
    """Those of one folder of sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoints: dict[str, Endpoint] = {}
        """By resource."""
        self._heard = asyncio.Event()

    async def registered(self, resource: str, wait: float = 10.0) -> None:
        """Until a plugin serves `resource` and has listed its devices."""
        async with asyncio.timeout(wait):
            while resource not in self.endpoints or not self.endpoints[resource].devices:
                self._heard.clear()
                await self._heard.wait()

    def allocatable(self, resource: str) -> int:
        endpoint = self.endpoints.get(resource)
        return len(endpoint.healthy) if endpoint else 0

    async def _register(self, request: messages.RegisterRequest, context: Any) -> messages.Empty:
        if request.version != VERSION:
            await context.abort(grpc.StatusCode.UNKNOWN, f"version {request.version} is not supported")
        channel = rpc.channel(str(self.folder / request.endpoint))
        options = await rpc.ask(channel, OPTIONS, messages.Empty(), 5.0)
        endpoint = Endpoint(channel, options)
        before = self.endpoints.get(request.resource_name)
        self.endpoints[request.resource_name] = endpoint
        if before is not None:
            await self._hang_up(before)
        endpoint.listening = asyncio.create_task(self._listen(endpoint))
        return messages.Empty()

    async def _listen(self, endpoint: Endpoint) -> None:
        stream: AsyncIterator[messages.ListAndWatchResponse] = rpc.listen(
            endpoint.channel, LIST_AND_WATCH, messages.Empty()
        )
        try:
            async for answer in stream:
                endpoint.devices = {device.ID: device for device in answer.devices}
                self._heard.set()
        except grpc.aio.AioRpcError:
            pass
        endpoint.stopped = True

    @staticmethod
    async def _hang_up(endpoint: Endpoint) -> None:
        endpoint.stopped = True
        if endpoint.listening is not None:
            endpoint.listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await endpoint.listening
        await endpoint.channel.close()
