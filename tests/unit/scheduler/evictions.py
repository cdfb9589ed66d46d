"""What the tests of preemption are built from: an API server that evicts, and a scheduler's stage with pods on it."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from hami.kube.errors import NotFound, TooMany
from hami.scheduler.evict import Evictor
from hami.scheduler.watch.records import pod_record
from hami.wire.annotations import NOMINATED
from hami.wire.objects import Pod

UNIX = 1_700_000_000.0


class Evictions:
    """An API server that evicts, but for pods whose budget is spent."""

    def __init__(self) -> None:
        self.budgets: set[str] = set()
        """Pods whose budget is spent."""
        self.shared: list[dict[str, Any]] = []
        """PodDisruptionBudget objects."""
        self.unready: set[str] = set()
        self.unreadable: Exception | None = None
        self.done: list[str] = []
        self.dry: list[str] = []
        self.missing: set[str] = set()
        self.notes: dict[str, str] = {}
        self.between: Callable[[str], None] = lambda _: None
        """Told of each dry run: what happens meanwhile."""

    async def create(self, path: str, body: Any) -> bytes:
        name = body["metadata"]["name"]
        assert path == f"/api/v1/namespaces/default/pods/{name}/eviction"
        assert body["deleteOptions"]["preconditions"] == {"uid": f"uid-{name}"}
        if name in self.missing:
            raise NotFound(404, "NotFound", "gone")
        if name in self.budgets:
            raise TooMany(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
        dry = bool(body["deleteOptions"].get("dryRun"))
        (self.dry if dry else self.done).append(name)
        if dry:
            self.between(name)
        return b"{}"

    async def get(self, path: str, type: type[Pod]) -> Pod:  # noqa: A002
        name = path.rpartition("/")[2]
        assert path == f"/api/v1/namespaces/default/pods/{name}"
        if name in self.missing:
            raise NotFound(404, "NotFound", "gone")
        ready = "False" if name in self.unready else "True"
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": name.partition("-")[0]}}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
        return msgspec.convert({"metadata": meta, "status": status}, type)

    async def list(self, path: str, type: type[Any]) -> list[Any]:  # noqa: A002
        assert path == "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        if self.unreadable is not None:
            raise self.unreadable
        return [msgspec.convert(one, type) for one in self.shared]

    async def patch(self, path: str, body: Any) -> bytes:
        name = path.rpartition("/")[2]
        assert path == f"/api/v1/namespaces/default/pods/{name}"
        assert body["metadata"]["uid"] == f"uid-{name}"
        self.notes[name] = body["metadata"]["annotations"][NOMINATED]
        told = {uid.removeprefix("uid-") for uid in json.loads(self.notes[name])["victims"]}
        assert told.isdisjoint(self.done), "noted before the act"
        return b"{}"


class Scene:
    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.api = Evictions()
        self.evictor = Evictor(stage.engine, self.api, stage.engine.narrator.preempted, lambda: UNIX)

    def holder(self, name: str, mem: int, priority: int = 0, node: str = "a") -> None:
        record = {"hami.io/vgpu-devices-allocated": f"GPU-{node}-0,NVIDIA,{mem},0:;"}
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": record}
        spec = {"nodeName": node, "containers": [{"name": "c"}], "priority": priority}
        pod = msgspec.convert({"metadata": meta, "spec": spec}, Pod)
        self.stage.ledger.set_pod(pod_record(pod, self.stage.engine.vendors))

    def waits(self, name: str, mem: int, priority: int, *nodes: str, **spec: Any) -> dict[str, Any]:
        pod: dict[str, Any] = self.stage.pod(name, gpu=1, gpumem=mem)
        pod["spec"] |= {"priority": priority, **spec}
        assert self.stage.filter(pod, *(nodes or ("a",)))["NodeNames"] == []
        return pod

    async def evicted(self) -> list[str]:
        await self.evictor.round()
        return self.api.done
