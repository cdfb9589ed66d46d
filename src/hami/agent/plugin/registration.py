"""Life with kubelet: our socket in its folder, our registration, and both again whenever one is lost.

kubelet, when it starts, removes every socket in its folder and forgets all plugins; until
they are back it fails the pods that need them. So its socket is looked at several times a second.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
from msgspec import Struct

from hami.agent.kubelet import rpc
from hami.agent.plugin.service import Plugin, options
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import REGISTER, VERSION

log = logging.getLogger(__name__)

REGISTER_S = 5.0
STREAM_S = 2.0
"""kubelet opens its stream at once after a registration; one without a stream is done again after this."""


class Identity(Struct, frozen=True):
    """What tells a file from its successor of the same name. Inode numbers are reused at once; times are not."""

    device: int
    inode: int
    made_ns: int


def identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino, found.st_ctime_ns)


class Registration:
    """Serves `plugin` on a socket of its own and keeps it registered, until cancelled."""

    def __init__(
        self,
        plugin: Plugin,
        folder: str,
        resource: str,
        poll: float = 0.25,
        on_state: Callable[[bool, str], None] = lambda _, __: None,
    ) -> None:
        self._plugin = plugin
        self._folder = Path(folder)
        self._resource = resource
        self._poll = poll
        self._on_state = on_state
        self._server: grpc.aio.Server | None = None
        self._own: Identity | None = None
        self._registered_with: Identity | None = None
        self._alone = 0.0
        self.registrations = 0

    @property
    def endpoint(self) -> str:
        return f"nvidia-{self._resource.rpartition('/')[2]}.sock"

    @property
    def socket(self) -> Path:
        return self._folder / self.endpoint

    def claim(self) -> None:
        """Register once more at the next look: somebody else may have taken our resource."""
        self._registered_with = None

    async def run(self) -> None:
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._poll)
        finally:
            await self._stop()

    async def _look(self) -> None:
        """One round: is kubelet there, is it the one that knows us, is our socket still ours?"""
        kubelet = identity(self._folder / "kubelet.sock")
        if kubelet is None:
            self._lost("kubelet.sock is not there: kubelet is not running, or the folder is not mounted")
            return
        if self._server is None or self._own is None or identity(self.socket) != self._own:
            self._lost("our own socket was removed")
            if not await self._serve():
                return
        if self._registered_with == kubelet and not self._forgotten():
            return
        await self._register(kubelet)

    def _forgotten(self) -> bool:
        """Whether kubelet has let go of our stream, which it does without a word when it drops a plugin."""
        if self._plugin.streams > 0:
            self._alone = 0.0
            return False
        self._alone += self._poll
        return self._plugin.dropped or self._alone >= STREAM_S

    async def _serve(self) -> bool:
        await self._stop()
        try:
            self.socket.unlink(missing_ok=True)
            server = rpc.server(self._plugin.handlers(), str(self.socket))
            await server.start()
        except (RuntimeError, OSError) as fault:
            self._lost(f"cannot serve {self.socket}: {fault}")
            return False
        self._server, self._own = server, identity(self.socket)
        return True

    async def _register(self, kubelet: Identity) -> None:
        request = messages.RegisterRequest(
            version=VERSION, endpoint=self.endpoint, resource_name=self._resource, options=options()
        )
        channel = rpc.channel(str(self._folder / "kubelet.sock"))
        self._plugin.registering()
        try:
            await rpc.ask(channel, REGISTER, request, REGISTER_S)
        except grpc.aio.AioRpcError as fault:
            self._lost(f"kubelet refuses to register {self._resource}: {fault.code().name}: {fault.details()}")
            return
        finally:
            await channel.close()
        self._registered_with, self._alone = kubelet, 0.0
        self.registrations += 1
        self._on_state(True, "")
        log.info("registered with kubelet", extra={"resource": self._resource, "endpoint": self.endpoint})

    def _lost(self, why: str) -> None:
        self._registered_with = None
        self._on_state(False, why)

    async def _stop(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        ours = identity(self.socket) == self._own
        self._plugin.hang_up()
        await server.stop(grace=1.0)  # an Allocate on its way may end
        if ours:
            with contextlib.suppress(OSError):  # read-only by now: kubelet removes what it finds there when it starts
                self.socket.unlink(missing_ok=True)
