"""A lab with the product in it: scheduler, webhook, policies, simulated nodes whose agents answer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.sim.agents import Agents
from hami.sim.nodes import Shape, create_nodes

if TYPE_CHECKING:
    from hami.lab import Lab
    from hami.lab.product import Product

Json = dict[str, Any]
T = TypeVar("T")
RECORD = "hami.io/vgpu-devices-allocated"
TLS_CLOSES_S = 0.2
"""A TLS connection that is closed says goodbye first; a loop that ends before leaves it open, which is a warning."""


class AgentThread:
    """Simulated agents of some nodes, in a loop of their own until stopped."""

    def __init__(self, kubeconfig: str, names: Sequence[str], **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, args=(kubeconfig, names, options), daemon=True)
        self._thread.start()

    def _run(self, kubeconfig: str, names: Sequence[str], options: Json) -> None:
        async def serve() -> None:
            async with await Kube.connect(kubeconfig) as kube:
                await Agents(kube, names, **options).run()

        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(serve())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(asyncio.sleep(TLS_CLOSES_S))
            self._loop.close()

    def stop(self) -> None:
        if self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


class Cluster:
    """What the tests do to a lab, in the words of the acceptance rows. All calls block."""

    def __init__(self, lab: "Lab") -> None:
        from hami.lab.product import SIMULATED_AGENTS

        self.lab = lab
        self.writer = str(lab.identity(SIMULATED_AGENTS, ["system:masters"]).kubeconfig)
        """Kubeconfig of one who may write records."""
        self._agents: list[AgentThread] = []
        self._loop = asyncio.new_event_loop()
        self._kube: Kube | None = None

    def close(self) -> None:
        for agents in self._agents:
            agents.stop()
        if self._kube is not None:
            self._do(self._kube.close())
            self._do(asyncio.sleep(TLS_CLOSES_S))
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def reconnect(self) -> None:
        """Forget connections to an API server that has gone."""
        if self._kube is not None:
            self._do(self._kube.close())
        self._kube = None

    @property
    def kube(self) -> Kube:
        if self._kube is None:
            self._kube = self._do(Kube.connect(str(self.lab.kubeconfig)))
        return self._kube

    # -- nodes ------------------------------------------------------------------

    def nodes(self, *names: str, agents: bool = True, **shape: Any) -> AgentThread | None:
        """Register nodes; their agents acknowledge unless told not to."""
        self._do(create_nodes(self.kube, names, Shape(**shape)))
        if not agents:
            return None
        self._agents.append(AgentThread(self.writer, names, heartbeat=15))
        return self._agents[-1]

    def annotate_node(self, name: str, **annotations: str | None) -> None:
        keyed = {f"hami.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        self._do(self.kube.patch(paths.nodes(name), {"metadata": {"annotations": keyed}}))

    def remove_nodes(self, *names: str) -> None:
        for name in names:
            self._do(self.kube.delete(paths.nodes(name)))

    # -- pods -------------------------------------------------------------------

    def pod(self, name: str, *, annotations: Json | None = None, spec: Json | None = None, **asks: int | str) -> Json:
        """A pod with one container that asks ``gpu=1, gpumem=4000``; the webhook completes it."""
        limits = {f"nvidia.com/{key.replace('_', '-')}": str(value) for key, value in asks.items()}
        container = {"name": "main", "image": "simulated", "resources": {"limits": limits}}
        meta = {"name": name, "namespace": "default", "annotations": annotations or {}}
        grace = {"terminationGracePeriodSeconds": 0}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"containers": [container], **grace, **(spec or {})},
        }

    def create(self, *pods: Json) -> None:
        kube = self.kube

        async def all_at_once() -> None:
            await asyncio.gather(*(kube.create(paths.pods("default"), pod) for pod in pods))

        self._do(all_at_once())

    def submit(self, name: str, *, annotations: Json | None = None, spec: Json | None = None, **asks: int | str) -> str:
        self.create(self.pod(name, annotations=annotations, spec=spec, **asks))
        return name

    def get(self, name: str) -> Json:
        import json

        found: Json = json.loads(self._do(self.kube.get(paths.pods("default", name))))
        return found

    def pods(self) -> list[Json]:
        import json

        items: list[Json] = json.loads(self._do(self.kube.get(paths.pods("default"))))["items"]
        return items

    def damage(self, name: str) -> None:
        """Overwrite the pod's record with nonsense."""

        async def write() -> None:
            async with await Kube.connect(self.writer) as kube:
                await kube.patch(paths.pods("default", name), {"metadata": {"annotations": {RECORD: "nonsense;"}}})

        self._do(write())

    def record(self, name: str) -> str | None:
        found: str | None = self.get(name)["metadata"].get("annotations", {}).get(RECORD)
        return found

    def node_of(self, name: str) -> str:
        node: str = self.get(name)["spec"].get("nodeName", "")
        return node

    def delete(self, *names: str) -> None:
        kube = self.kube

        async def all_at_once() -> None:
            await asyncio.gather(
                *(kube.delete(paths.pods("default", name), {"gracePeriodSeconds": 0}) for name in names)
            )

        self._do(all_at_once())

    def clear(self) -> None:
        """No pod and no event is left."""
        self._do(self.kube.request("DELETE", paths.pods("default"), body={"gracePeriodSeconds": 0}))
        self._do(self.kube.request("DELETE", paths.events("default"), body={}))
        self.until("no pod is left", lambda: not self.pods())

    # -- waiting ----------------------------------------------------------------

    def until(self, what: str, done: Callable[[], T], timeout: float = 60.0) -> T:
        """Poll until `done()` is true; returns it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = done()
            except NotFound:
                answer = None  # type: ignore[assignment]
            if answer:
                return answer
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {timeout:g} s")
            time.sleep(0.05)

    def bound(self, *names: str, timeout: float = 60.0) -> list[str]:
        """Wait until all are bound; their nodes."""
        return [self.until(f"{name} is bound", lambda name=name: self.node_of(name), timeout) for name in names]  # type: ignore[misc]

    def running(self, *names: str, timeout: float = 60.0) -> None:
        for name in names:
            self.until(
                f"{name} runs",
                lambda name=name: self.get(name)["status"]["phase"] == "Running",
                timeout,  # type: ignore[misc]
            )

    def reason(self, name: str) -> str:
        """Why the pod is pending, as kube-scheduler says it; waits until it does."""

        def said() -> str:
            conditions = self.get(name)["status"].get("conditions", [])
            return next((one.get("message", "") for one in conditions if one["type"] == "PodScheduled"), "")

        return self.until(f"{name} has a reason", said)

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of the pod's events."""
        import json

        items = json.loads(self._do(self.kube.get(paths.events("default"))))["items"]
        return [(one["reason"], one["message"]) for one in items if one["involvedObject"]["name"] == name]

    def taken(self) -> dict[str, int]:
        """MiB of every card, from the records of all pods that are not finished."""
        from hami.wire.annotations import decode_devices

        taken: dict[str, int] = {}
        for pod in self.pods():
            text = pod["metadata"].get("annotations", {}).get(RECORD)
            if text and pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running"):
                for container in decode_devices(text):
                    for one in container:
                        taken[one.card] = taken.get(one.card, 0) + one.mem_mib
        return taken


@pytest.fixture(scope="module")
def product_lab() -> "Iterator[tuple[Lab, Product]]":
    """A lab of the module's own with the product installed and one replica running."""
    from hami.lab import Lab
    from hami.lab.product import Product

    with Lab() as lab:
        product = Product(lab, flags={"hold-timeout": "3", "handshake-timeout": "4"})
        product.start()
        product.install()
        yield lab, product


@pytest.fixture(scope="module")
def product(product_lab: "tuple[Lab, Product]") -> "Product":
    return product_lab[1]


@pytest.fixture(scope="module")
def _module_cluster(product_lab: "tuple[Lab, Product]") -> Iterator[Cluster]:
    lab, _ = product_lab
    cluster = Cluster(lab)
    lab.wait_for("the default service account", lambda: lab.kubectl("get", "serviceaccount", "default"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_module_cluster: Cluster) -> Iterator[Cluster]:
    """The module's cluster, without a pod before and after."""
    _module_cluster.clear()
    yield _module_cluster
    _module_cluster.clear()


@pytest.fixture
def cluster_of() -> Iterator[Callable[["Lab"], Cluster]]:
    """`Cluster` for a lab of the test's own."""
    made: list[Cluster] = []

    def make(lab: "Lab") -> Cluster:
        made.append(Cluster(lab))
        lab.wait_for("the default service account", lambda: lab.kubectl("get", "serviceaccount", "default"))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
