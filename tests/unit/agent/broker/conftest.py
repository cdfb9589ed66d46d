"""A broker on real sockets, with grants put by hand and clients that behave as told."""

import array
import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hami.agent.broker.server import Broker
from hami.agent.broker.tenants import Tenant
from hami.model.ask import PodRef
from hami.model.ids import PodUid
from hami.wire.broker import Hello, Message, decode, encode
from hami.wire.policy import CardLimit, LibraryPolicy
from hami.wire.policy import encode as policy_text

CARD = "GPU-00000000-0000-4000-8000-000000000000"
OTHER = "GPU-00000000-0000-4000-8000-000000000001"
HELLO = Hello(pid=7, pid_namespace=1, start_ticks=5, program="probe")
UID = "11111111-2222-4333-8444-55555555555{}"
PATIENCE_S = 30
"""For what comes at once, on a machine that may be busy with other things."""


def connect(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    opened = os.open(folder / "broker", os.O_PATH)
    try:
        made.connect(f"/proc/self/fd/{opened}/sock")
    except OSError:
        made.close()
        raise
    finally:
        os.close(opened)
    return made


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class Client:
    """One connection. Reading waits for at most PATIENCE_S."""

    def __init__(self, folder: Path) -> None:
        self.socket = connect(folder)
        self.descriptors: list[int] = []

    def send(self, *messages: Message | bytes) -> "Client":
        for message in messages:
            self.socket.send(message if isinstance(message, bytes) else encode(message))
        return self

    async def packet(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    packet, ancillary, _, _ = self.socket.recvmsg(512, 64)
                except BlockingIOError:
                    await asyncio.sleep(0.002)
                    continue
                for _, _, numbers in ancillary:
                    self.descriptors += array.array("i", numbers)
                return packet

    async def read(self) -> Message:
        return decode(await self.packet(), from_library=False)

    async def several(self, count: int) -> list[Message]:
        return [await self.read() for _ in range(count)]

    async def gone(self) -> bool:
        """Reads to the end."""
        try:
            while await self.packet():
                pass
        except ConnectionError:
            return True
        return True

    def quiet(self) -> bool:
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is None
        except BlockingIOError:
            return True

    def close(self) -> None:
        self.socket.close()
        for one in self.descriptors:
            os.close(one)


@dataclass
class Stage:
    """The broker and what is around it."""

    root: Path
    now: float = 1000.0
    tenants: dict[str, Tenant] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = self.build()

    def build(self) -> Broker:
        return Broker(lambda: list(self.tenants.values()), lambda key: self.root / key, clock=lambda: self.now)

    def grant(
        self, key: str, *, mem: int | None = 8000, cores: int = 30, cards=(CARD,), round_: bool = True, **more
    ) -> Path:
        folder = self.root / key
        (folder / "broker").mkdir(parents=True, exist_ok=True)
        limits = tuple(CardLimit(card, mem, cores) for card in cards)
        fresh = folder / "policy.new"
        fresh.write_text(policy_text(LibraryPolicy(container=f"{key}/main", cards=limits, **more)))
        fresh.replace(folder / "policy")
        if key not in self.tenants:
            uid = PodUid(UID.format(len(self.tenants)))
            self.tenants[key] = Tenant(key, PodRef("default", f"pod-{key}", uid), "main")
        self.broker.round()
        return folder

    def client(self, key: str) -> Client:
        made = Client(self.root / key)
        self.clients.append(made)
        return made

    async def joined(self, key: str, cards: int = 1) -> Client:
        client = self.client(key).send(HELLO)
        await client.several(1 + cards)
        return client

    async def until(self, holds: Callable[[], object]) -> None:
        """At most PATIENCE_S."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - it looks at sockets of the kernel, which tell no event
                await asyncio.sleep(0.002)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def stage(tmp_path):
    made = Stage(tmp_path)
    yield made
    for client in made.clients:
        client.close()
    made.broker.close()
