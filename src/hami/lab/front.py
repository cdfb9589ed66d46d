"""The scheduler's Service in a lab, as a chart would have it, so that people reach its API through the API server.

The API server's proxy goes to no address of loopback, where the scheduler listens, and to pods only: a forwarder on
another address of this machine stands before it, and a pod object for it.
"""

import asyncio
import json
import socket
import threading
from types import TracebackType
from typing import Self

from hami.lab.product import Product
from hami.scheduler import manifests

OWN_IP = "192.0.2.1"
"""Of a documentation network: nothing is sent to it, only the way out is looked up."""


def own_address() -> str | None:
    """This machine's address that is not loopback, which Kubernetes takes for no endpoint; None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((OWN_IP, 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


class Front:
    """Service, rights and the way to the first replica of `product`, at `address`."""

    def __init__(self, product: Product, address: str) -> None:
        self._product = product
        self._address = address

    def __enter__(self) -> Self:
        self._forwarder = Forwarder(self._address, self._product.replicas[0].port)
        try:
            self._apply()
        except BaseException:
            self._forwarder.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._forwarder.stop()

    def _apply(self) -> None:
        lab, site = self._product.lab, self._product.site
        meta = {"name": site.webhook_service, "namespace": site.namespace}
        spec = {"ports": [{"name": "https", "port": site.webhook_port}]}
        whom = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"]}
        ports = [{"name": "https", "port": self._forwarder.port}]
        subset = {"addresses": [{"ip": self._address, "targetRef": whom}], "ports": ports}
        stand_in = {"schedulerName": "nobody", "containers": [{"name": "scheduler", "image": "none"}]}
        lab.wait_for("the default account", lambda: lab.get("serviceaccount", "default", meta["namespace"]))
        lab.apply(
            [
                {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": stand_in},
                {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
                {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": [subset]},
                *manifests.people(site),
            ]
        )
        status = {"status": {"phase": "Running", "podIP": self._address, "podIPs": [{"ip": self._address}]}}
        where = ("pod", meta["name"], "-n", meta["namespace"])
        lab.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", json.dumps(status))
        way = f"/api/v1/namespaces/{meta['namespace']}/services/https:{meta['name']}:{site.webhook_port}/proxy/readyz"
        lab.wait_for("the way through the API server", lambda: lab.kubectl("get", "--raw", way))


class Forwarder:
    """A port on this machine's own address in front of one on loopback."""

    def __init__(self, address: str, target: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._target = target
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, address, 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer), return_exceptions=True)
        except (asyncio.CancelledError, OSError):  # we stop, or the scheduler has; asyncio would print a traceback
            writer.close()

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            mine = asyncio.current_task()
            tasks = [task for task in asyncio.all_tasks() if task is not mine]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
