"""A device plugin that thinks about nothing, a peer of `benchmarks.burst`: how fast kubelet itself allocates here.

    python -m benchmarks.handout --devices 160 --log FILE

Runs in the node's namespaces. Each Allocate is answered at once, with nothing, and its moment
(seconds of the monotonic clock) becomes a line of the file.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click

from hami.agent.kubelet import rpc
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import ALLOCATE, HEALTHY, LIST_AND_WATCH, OPTIONS, REGISTER, VERSION

FOLDER = Path("/var/lib/kubelet/device-plugins")
RESOURCE = "example.com/slice"
ENDPOINT = "handout.sock"


async def serve(devices: int, log: Path) -> None:
    with log.open("a", buffering=1) as file:

        async def options(_: messages.Empty, __: Any) -> messages.DevicePluginOptions:
            return messages.DevicePluginOptions()

        async def listed(_: messages.Empty, __: Any) -> AsyncIterator[messages.ListAndWatchResponse]:
            every = [messages.Device(ID=f"slice-{number}", health=HEALTHY) for number in range(devices)]
            yield messages.ListAndWatchResponse(devices=every)
            await asyncio.Event().wait()

        async def allocate(request: messages.AllocateRequest, __: Any) -> messages.AllocateResponse:
            file.write(f"{time.monotonic()}\n")
            answers = [messages.ContainerAllocateResponse() for _ in request.container_requests]
            return messages.AllocateResponse(container_responses=answers)

        server = rpc.server(
            ((OPTIONS, options), (LIST_AND_WATCH, listed), (ALLOCATE, allocate)), str(FOLDER / ENDPOINT)
        )
        await server.start()
        channel = rpc.channel(str(FOLDER / "kubelet.sock"))
        asked = messages.RegisterRequest(version=VERSION, endpoint=ENDPOINT, resource_name=RESOURCE)
        await rpc.ask(channel, REGISTER, asked, 10.0)
        await server.wait_for_termination()


@click.command()
@click.option("--devices", required=True, type=int)
@click.option("--log", required=True, type=click.Path(path_type=Path))
def main(devices: int, log: Path) -> None:
    """Hand out until killed."""
    asyncio.run(serve(devices, log))


if __name__ == "__main__":
    main()
