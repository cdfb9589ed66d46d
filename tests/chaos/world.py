"""A cluster in which everything goes wrong: one random schedule of it.

A schedule is a seed. It makes pods come, go and finish, kube-scheduler work
from stale caches and restart, replicas crash and hand over, requests and events be lost,
doubled, late and out of order. `truth` judges every write, `settle` the end.
"""

import random
from typing import Any

import msgspec

from hami.model.card import Card
from hami.model.errors import HamiError
from hami.model.ids import CardId, Family
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.verbs import prioritize
from hami.sim.apiserver import Faults, Store
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.faults import Mischief
from hami.sim.apiserver.route import Place
from hami.sim.apiserver.store import Stored
from hami.wire import register

from .api import Network
from .replica import BIND_TIMEOUT, HOLD, VENDORS, Replica
from .stepping import Task
from .truth import Truth

REGISTER = "hami.io/node-nvidia-register"
CORDON = "hami.io/device-cordon"
NODES = ("n0", "n1", "n2")
PODS = Place("v1/pods", "d")
Json = dict[str, Any]


def cards_of(node: str, count: int) -> list[Card]:
    return [
        Card(CardId(f"GPU-{node}-{index}"), Family("NVIDIA"), "NVIDIA-A100", index, 3, 10_000, 100)
        for index in range(count)
    ]


class World:
    """One schedule: `run` it, then `settle.settle` it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        chance = self.chance = random.Random(seed)
        self.now = {"clock": 0.0}
        self.store = Store(now=lambda: self.now["clock"])
        self.desk = Desk(self.store)
        storm = chance.choice([0.0, 0.05, 0.2, 0.5])
        # Each schedule has a taste of its own, so that what is rare in most is frequent in some.
        self.weights = [weight * chance.choice([0.2, 1.0, 1.0, 3.0]) for weight in WEIGHTS]
        self.network = Network(chance, storm)
        self.faults = Faults(seed)
        self.faults.mischief = Mischief(cut=storm / 2, duplicate=storm, late=storm, reorder=storm, gone=storm / 5)
        self.cards = {name: cards_of(name, chance.choice([1, 1, 2])) for name in NODES}
        self.truth = Truth(self.store, [card for cards in self.cards.values() for card in cards], VENDORS)
        self.replicas = [self.replica() for _ in range(2)]
        self.leader = 0
        self.replicas[0].lead()
        self.pending: dict[str, Stored] = {}
        """kube-scheduler's cache of pods to place, by uid; as old as its last look."""
        self.chosen: list[tuple[Stored, str]] = []
        """Filtered, not yet bound."""
        self.binding: dict[str, Task] = {}
        self.serial = 0
        self.trace: list[str] = []
        for name in NODES:
            self.put_node(name)
        if chance.random() < 0.7:  # most troubles meet a scheduler that runs
            for feed in self.replicas[0].feeds * 8:
                feed.step(chance)

    def replica(self) -> Replica:
        return Replica(self.desk, self.network, self.faults, self.now)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            act = self.chance.choices(ACTS, self.weights)[0]
            act(self)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now['clock']:.0f}s v{self.store.version} {text}")

    # -- users and kubelets -------------------------------------------------------

    def create_pod(self) -> None:
        if len(self.store.list("v1/pods")) >= 14:
            return
        name = f"p{self.serial % 12}"  # names come again, uids do not
        self.serial += 1
        if any(stored.value["metadata"]["name"] == name for stored in self.store.list("v1/pods")):
            return
        self.store.create(PODS, {"metadata": {"name": name}, "spec": self.spec()})
        self.note(f"create {name}")

    def spec(self) -> Json:
        chance = self.chance

        def container(name: str, least: int = 1) -> Json:
            limits = {
                "nvidia.com/gpu": str(chance.choice([1, 1, 1, 2]) if least else 0),
                "nvidia.com/gpumem": str(chance.choice([1000, 2500, 4000, 5000, 6000, 10000])),
                "nvidia.com/gpucores": str(chance.choice([0, 0, 20, 40, 60, 100])),
            }
            return {"name": name, "resources": {"limits": limits}}

        spec: Json = {"containers": [container("main")]}
        if chance.random() < 0.15:
            spec["containers"].append({"name": "plain"})
        if chance.random() < 0.15:
            spec["containers"].append(container("second"))
        if chance.random() < 0.2:
            spec["initContainers"] = [container("init")]
        return spec

    def some_pod(self, *, bound: bool | None = None) -> Place | None:
        pods = [
            stored.value["metadata"]["name"]
            for stored in self.store.list("v1/pods")
            if bound is None or bool(stored.value["spec"].get("nodeName")) is bound
        ]
        return Place("v1/pods", "d", self.chance.choice(pods)) if pods else None

    def delete_pod(self) -> None:
        if place := self.some_pod():
            self.store.delete(place, {"gracePeriodSeconds": 0} if self.chance.random() < 0.4 else None)
            self.note(f"delete {place.name}")

    def work_of_kubelets(self) -> None:
        """A pod finishes, its init containers do, or its deletion is carried out."""
        place = self.some_pod(bound=True)
        if place is None:
            return
        pod = self.store.get(place).value
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            return  # there is no way back from there
        if "deletionTimestamp" in pod["metadata"] and self.chance.random() < 0.6:
            self.store.delete(place, {"gracePeriodSeconds": 0})
            self.note(f"removed {place.name}")
            return
        status = Place("v1/pods", "d", place.name, "status")
        if "initContainers" in pod["spec"] and self.chance.random() < 0.5:
            done = [{"name": "init", "state": {"terminated": {"exitCode": 0}}}]
            self.store.patch(status, {"status": {"initContainerStatuses": done}}, "merge")
            return
        phase = self.chance.choice(["Running", "Running", "Succeeded", "Failed"])
        self.store.patch(status, {"status": {"phase": phase}}, "merge")
        self.note(f"{phase} {place.name}")

    def touch_pod(self) -> None:
        if place := self.some_pod():
            self.store.patch(place, {"metadata": {"labels": {"at": str(self.store.version)}}}, "merge")

    def other_scheduler(self) -> None:
        """Somebody binds a pod past us, without a record."""
        place = self.some_pod(bound=False)
        if place is not None and "deletionTimestamp" not in self.store.get(place).value["metadata"]:
            self.store.bind(place, {"target": {"name": self.chance.choice(NODES)}})
            self.note(f"bound past us {place.name}")

    # -- nodes ------------------------------------------------------------------

    def put_node(self, name: str, **annotations: str | None) -> None:
        place = Place("v1/nodes", None, name)
        cards = {REGISTER: register.encode(self.cards[name]), CORDON: None, **annotations}
        if any(stored.value["metadata"]["name"] == name for stored in self.store.list("v1/nodes")):
            self.store.patch(place, {"metadata": {"annotations": cards}}, "merge")
            return
        body = {
            "metadata": {"name": name, "annotations": {key: text for key, text in cards.items() if text}},
            "status": {"allocatable": {"nvidia.com/gpu": str(3 * len(self.cards[name]))}},
        }
        self.store.create(Place("v1/nodes"), body)

    def change_node(self) -> None:
        name = self.chance.choice(NODES)
        match self.chance.randrange(5):
            case 0:
                if any(stored.value["metadata"]["name"] == name for stored in self.store.list("v1/nodes")):
                    self.store.delete(Place("v1/nodes", None, name))
            case 1:
                self.put_node(name, **{CORDON: f"GPU-{name}-0"})
            case 2:
                self.put_node(name, **{REGISTER: "[{broken"})
            case _:
                self.put_node(name)
        self.note(f"node {name} changed")

    # -- kube-scheduler -------------------------------------------------------------

    def look_at_pods(self) -> None:
        """kube-scheduler's cache catches up, with all pods or with some."""
        there = {stored.value["metadata"]["uid"]: stored for stored in self.store.list("v1/pods")}
        self.pending = {uid: stored for uid, stored in self.pending.items() if uid in there}
        for uid, stored in there.items():
            if stored.value["spec"].get("nodeName"):
                self.pending.pop(uid, None)
            elif uid not in self.binding and self.chance.random() < 0.8:
                self.pending[uid] = stored

    def schedule_pod(self) -> None:
        """A scheduling cycle: filter, prioritize, choose. The bind comes later."""
        if not self.pending:
            return
        uid = self.chance.choice(sorted(self.pending))
        stored = self.pending.pop(uid)
        if uid not in self.binding and all(other is not stored for other, _ in self.chosen):
            node = self.choose(stored)
            if node is not None:
                self.chosen.append((stored, node))

    def choose(self, stored: Stored) -> str | None:
        engine = self.replicas[self.leader].engine
        names = [name for name in NODES if self.chance.random() < 0.9] or list(NODES)
        body = msgspec.json.encode({"Pod": stored.value, "NodeNames": names})
        try:
            answer = msgspec.json.decode(filtering.answer(engine, body))
        except HamiError as fault:  # `serve` makes the answer's Error of it
            answer = {"Error": str(fault)}
        feasible = answer.get("NodeNames") or []
        self.note(f"filter {stored.value['metadata']['name']} -> {feasible or answer.get('Error') or 'none'}")
        if self.chance.random() < 0.03:
            return self.chance.choice(NODES)  # a cache so stale that the answer was for another world
        if not feasible:
            return None
        if self.chance.random() < 0.2:
            choice: str = self.chance.choice(feasible)  # another plugin weighed more
            return choice
        body = msgspec.json.encode({"Pod": stored.value, "NodeNames": feasible})
        scores = msgspec.json.decode(prioritize.answer(engine, body))
        best: str = max(scores, key=lambda one: one["Score"])["Host"]
        return best

    def bind_pod(self) -> None:
        if self.chosen:
            stored, node = self.chosen.pop(self.chance.randrange(len(self.chosen)))
            self.bind(stored, node)

    def bind(self, stored: Stored, node: str) -> Task:
        metadata = stored.value["metadata"]
        args = {"PodName": metadata["name"], "PodNamespace": "d", "PodUID": metadata["uid"], "Node": node}
        leader = self.replicas[self.leader]
        task = leader.start(Task(leader.binder.answer(msgspec.json.encode(args)), f"bind {metadata['name']} to {node}"))
        self.binding[metadata["uid"]] = task
        self.note(task.title)
        return task

    def hear_of_binds(self) -> None:
        for uid, task in list(self.binding.items()):
            if task.done:
                del self.binding[uid]
                self.note(f"{task.title} -> {task.result!r:.120}")

    def restart_kube_scheduler(self) -> None:
        """Its calls to us end; what we were doing goes on, or is cancelled with the connection."""
        self.pending.clear()
        self.chosen.clear()
        for task in self.binding.values():
            if self.chance.random() < 0.5:
                task.cancel()
        for replica in self.replicas:
            replica.tasks = [task for task in replica.tasks if not task.done]
        self.binding.clear()
        self.note("kube-scheduler restarted")

    # -- replicas, network, time ------------------------------------------------------

    def step_call(self) -> None:
        self.chance.choice(self.replicas).step(self.chance)
        self.hear_of_binds()

    def step_feed(self) -> None:
        self.chance.choice(self.chance.choice(self.replicas).feeds).step(self.chance)

    def bookmark(self) -> None:
        self.chance.choice(self.chance.choice(self.replicas).feeds).bookmark()

    def cut(self) -> None:
        self.chance.choice(self.chance.choice(self.replicas).feeds).cut()

    def compact(self) -> None:
        self.store.compact()

    def land_late(self) -> None:
        replica = self.chance.choice(self.replicas)
        if replica.api.late:
            late = self.chance.choice(replica.api.late)
            replica.api.land(late)
            self.note(f"late {late.method} {late.path}")

    def pass_time(self) -> None:
        seconds = self.chance.choice([0.1, 1.0, 5.0, HOLD + 1.0, 121.0])
        if seconds > BIND_TIMEOUT:
            for replica in self.replicas:
                replica.outwait()
        self.now["clock"] += seconds
        for replica in self.replicas:
            for late in [late for late in replica.api.late if late.deadline <= self.now["clock"]]:
                if self.chance.random() < 0.5:
                    replica.api.land(late)
                else:
                    replica.api.late.remove(late)
            replica.keep_house(self.now["clock"])

    def crash(self) -> None:
        """A replica dies and comes back empty; if it led, the other takes over or it leads again."""
        which = self.chance.randrange(2)
        self.replicas[which].cut_off(self.chance)
        self.replicas[which] = self.replica()
        self.note(f"replica {which} crashed")
        if which == self.leader:
            self.take_over(self.chance.randrange(2))

    def hand_over(self) -> None:
        """The lease moves on; the old leader lives, cut off from the API server until it has stopped."""
        old = self.replicas[self.leader]
        old.cut_off(self.chance)
        old.api.alive = True
        old.gate.follow("another replica decides")
        self.take_over(1 - self.leader)

    def take_over(self, which: int) -> None:
        self.leader = which
        self.replicas[which].lead()
        self.pending.clear()  # it has a kube-scheduler of its own
        self.chosen.clear()
        self.binding.clear()
        self.note(f"replica {which} leads")


ACTS = (
    World.create_pod,
    World.delete_pod,
    World.work_of_kubelets,
    World.touch_pod,
    World.other_scheduler,
    World.change_node,
    World.look_at_pods,
    World.schedule_pod,
    World.bind_pod,
    World.restart_kube_scheduler,
    World.step_call,
    World.step_feed,
    World.bookmark,
    World.cut,
    World.compact,
    World.land_late,
    World.pass_time,
    World.crash,
    World.hand_over,
)
WEIGHTS = (12, 3, 4, 1, 0.7, 1, 10, 16, 16, 0.7, 30, 25, 1, 1, 0.7, 4, 3, 0.4, 1)
