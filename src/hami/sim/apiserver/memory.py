"""A `Kube` without a socket: calls go straight to a `Store`. For tests that need speed or exact steps."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from hami.kube.client import Body, Kube, Params
from hami.kube.errors import Unanswered, Unreachable
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.faults import Faults
from hami.sim.apiserver.route import refuse
from hami.sim.apiserver.store import Change, Store


class MemoryKube(Kube):
    """Every verb of `Kube`; only the way to the server differs. Awaits nothing unless a fault delays it."""

    def __init__(self, store: Store, faults: Faults | None = None) -> None:
        self.store = store
        self.faults = faults or Faults()
        self._desk = Desk(store)

    async def close(self) -> None:
        pass

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        params: Params | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,  # noqa: ASYNC109 - as Kube's
    ) -> bytes:
        payload = (
            b"" if body is None else bytes(body) if isinstance(body, bytes | bytearray) else msgspec.json.encode(body)
        )
        fault = self.faults.of_request(method, path)
        if fault is not None:
            if fault.act == "delay":
                await asyncio.sleep(fault.seconds)
            if fault.act == "refuse":
                raise refuse(fault.status, fault.reason, "by order of the test", fault.retry_after)
            if fault.act == "drop":
                raise Unreachable(f"API server, {path}: by order of the test")
        _, answer = self._desk.answer(method, path, _strings(params), payload, content_type)
        if fault is not None and fault.act == "lose":
            raise Unanswered(f"API server, {path}: by order of the test")
        return answer

    async def watch(self, path: str, params: Params | None = None) -> AsyncGenerator[bytes, None]:
        cursor, lines = self._desk.watch_of(path, _strings(params))
        woken = asyncio.Event()

        def wake(_: Change) -> None:
            woken.set()

        self.store.on_change.append(wake)
        try:
            while True:
                for each in lines:
                    yield each
                await woken.wait()
                woken.clear()
                lines = cursor.read()
        finally:
            self.store.on_change.remove(wake)


def _strings(params: Params | None) -> Mapping[str, str]:
    return {key: str(value) for key, value in (params or {}).items()}
