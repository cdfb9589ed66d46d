"""A deciding replica without sockets: engine, ledger, a clock that is moved by hand, and an API server of one dict."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from hami.config.schema import DeviceConfig
from hami.kube.errors import Conflicted, NotFound
from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ask import Policies
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName
from hami.scheduler.engine import Engine
from hami.scheduler.gate import Gate
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.meters import Meters
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.verbs import prioritize
from hami.scheduler.verbs.bind import Binder
from hami.vendors.table import load
from hami.wire.objects import Pod

Json = dict[str, Any]


class FakeApi:
    """Pods by path, as kube-apiserver keeps them. `faults` are raised by the next requests, before or after the act."""

    def __init__(self) -> None:
        self.pods: dict[str, Json] = {}
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.reads: list[Exception] = []
        self.bindings: list[Json] = []
        self.patches: list[tuple[str, Json]] = []

    def add(self, pod: Json) -> None:
        meta = pod["metadata"]
        self.pods[f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"] = json.loads(json.dumps(pod))

    async def request(self, method: str, path: str, *, body: object = None, **_: float | None) -> bytes:
        assert (method, path.rpartition("/")[2]) == ("POST", "binding")
        assert isinstance(body, dict)
        if self.before:
            raise self.before.pop(0)
        self.bindings.append(body)
        self._bind(path.removesuffix("/binding"), body)
        if self.after:
            raise self.after.pop(0)
        return b"{}"

    def _bind(self, path: str, body: Json) -> None:
        pod = self.pods.get(path)
        if pod is None:
            raise NotFound(404, "NotFound", f'pods "{path}" not found')
        if pod["metadata"]["uid"] != body["metadata"]["uid"]:
            raise Conflicted(409, "Conflict", "uid in precondition differs")
        if pod["spec"].get("nodeName"):
            raise Conflicted(409, "Conflict", f"pod is already assigned to node {pod['spec']['nodeName']}")
        pod["spec"]["nodeName"] = body["target"]["name"]
        pod["metadata"].setdefault("annotations", {}).update(body["metadata"]["annotations"])

    async def get(self, path: str, type: type[Pod]) -> Pod:  # noqa: A002
        if self.reads:
            raise self.reads.pop(0)
        if path not in self.pods:
            raise NotFound(404, "NotFound", "no such pod")
        return msgspec.json.decode(json.dumps(self.pods[path]), type=type)

    async def patch(self, path: str, body: object) -> bytes:
        if path not in self.pods:
            raise NotFound(404, "NotFound", "no such pod")
        assert isinstance(body, dict)
        self.patches.append((path, body))
        return b"{}"


class Events:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, str]] = []

    def record(self, regarding: Any, kind: str, reason: str, message: str) -> None:
        self.told.append((str(regarding), kind, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason, _ in self.told]


class Stage:
    """One replica on a stage."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.api = FakeApi()
        self.events = Events()
        self.gate = Gate()
        for part in ("nodes", "pods"):
            self.gate.rebuilt(part)
        self.gate.lead()
        self.ledger = Ledger()
        self.registry = CollectorRegistry()
        self.engine = Engine(
            ledger=self.ledger,
            vendors=load(DeviceConfig()),
            policies=Policies(),
            gate=self.gate,
            waiting=Waiting(),
            meters=Meters(self.registry),
            narrator=Narrator(self.events),
            clock=lambda: self.now,
            hold=30.0,
        )
        self.binder = Binder(self.engine, self.api, lambda: 1700000000.0, 10.0)

    def node(self, name: str, cards: int = 1, mem: int = 16000, slots: int = 10, problem: str | None = None) -> None:
        self.ledger.set_node(NodeRecord(NodeName(name), cards_of(name, cards, mem, slots), problem=problem))

    def pod(self, name: str, uid: str = "", annotations: Json | None = None, **asks: int | str) -> Json:
        """A pending pod that asks ``gpu=1, gpumem=4000``; the API server has it too."""
        limits = {f"nvidia.com/{key.replace('_', '-')}": str(value) for key, value in asks.items()}
        meta: Json = {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "annotations": annotations or {},
        }
        pod: Json = {"metadata": meta, "spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]}}
        self.api.add(pod)
        return pod

    def ask(self, pod: Json, names: Sequence[str]) -> bytes:
        return json.dumps({"Pod": pod, "Nodes": None, "NodeNames": list(names)}).encode()

    def filter(self, pod: Json, *names: str) -> Json:
        answer: Json = json.loads(filtering.answer(self.engine, self.ask(pod, names)))
        assert self.ledger.recount() == []
        return answer

    def prioritize(self, pod: Json, *names: str) -> dict[str, int]:
        answer = json.loads(prioritize.answer(self.engine, self.ask(pod, names)))
        return {one["Host"]: one["Score"] for one in answer}

    async def bind(self, pod: Json, node: str) -> str:
        meta = pod["metadata"]
        body = {"PodName": meta["name"], "PodNamespace": "default", "PodUID": meta["uid"], "Node": node}
        answer: Json = json.loads(await self.binder.answer(json.dumps(body).encode()))
        assert self.ledger.recount() == []
        error: str = answer["Error"]
        return error

    def used(self, node: str) -> list[int]:
        """MiB taken of each card."""
        state = self.ledger.node(NodeName(node))
        assert state is not None
        return [card.used_mem_mib for card in state.cards]

    def figure(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def cards_of(node: str, cards: int = 1, mem: int = 16000, slots: int = 10) -> tuple[Card, ...]:
    return tuple(
        Card(CardId(f"GPU-{node}-{index}"), Family("NVIDIA"), "NVIDIA-A100", index, slots, mem, 100)
        for index in range(cards)
    )


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def make_cards() -> Callable[..., tuple[Card, ...]]:
    return cards_of
