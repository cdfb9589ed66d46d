"""One scheduler replica: the product's own engine, doors and binder, on a network and a clock of the test's."""

import random

from prometheus_client import CollectorRegistry

from hami.config.schema import DeviceConfig
from hami.ledger.cluster import Ledger
from hami.model.ask import Policies
from hami.scheduler.engine import Engine
from hami.scheduler.gate import Gate
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.meters import Meters
from hami.scheduler.verbs.bind import Binder
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.sync import NodeDoor, PodDoor
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.faults import Faults
from hami.vendors.table import load
from hami.wire.objects import Node, Pod

from .api import Api, Network
from .feed import Feed
from .stepping import Task

VENDORS = load(DeviceConfig())
METERS = Meters(CollectorRegistry())
"""One for all: making them costs more than a whole schedule."""
HOLD = 30.0
BIND_TIMEOUT = 10.0


class Replica:
    """Dies with all it knows when the test drops it."""

    def __init__(self, desk: Desk, network: Network, faults: Faults, now: dict[str, float]) -> None:
        self._desk = desk
        self._faults = faults
        self.api = Api(desk, network, now)
        self.gate = Gate()
        self.ledger = Ledger()
        self.engine = Engine(
            ledger=self.ledger,
            vendors=VENDORS,
            policies=Policies(),
            gate=self.gate,
            waiting=Waiting(),
            meters=METERS,
            narrator=Narrator(),
            clock=lambda: now["clock"],
            hold=HOLD,
        )
        self.binder = Binder(self.engine, self.api, lambda: 1_700_000_000.0 + now["clock"], BIND_TIMEOUT)
        handshakes = Handshakes(0.0, lambda: now["clock"])
        self._nodes = NodeDoor(self.ledger, VENDORS, handshakes, self.gate, lambda _: None)
        self._pods = PodDoor(self.ledger, VENDORS, self.engine.waiting, self.gate, lambda _: None)
        self.tasks: list[Task] = []
        self.feeds: list[Feed[Node] | Feed[Pod]] = []
        self.read_anew()

    def read_anew(self) -> None:
        """As `Watches.run` does at the start and when `rebuild` asks for it."""
        self.gate.rebuild()
        self._nodes.begin()
        self._pods.begin()
        self.feeds = [
            Feed(self._desk, self._faults, "/api/v1/nodes", Node, self._nodes),
            Feed(self._desk, self._faults, "/api/v1/pods", Pod, self._pods),
        ]

    def lead(self) -> None:
        """As `Leadership.started` does."""
        self.gate.rebuild()
        self.read_anew()
        self.gate.lead()

    def keep_house(self, now: float) -> None:
        """As `Scheduler.keep_house` does each second."""
        self.ledger.expire(now)
        if not any(task.title == "house" for task in self.tasks):
            self.start(Task(self.binder.settle_overdue(), "house"))

    def start(self, task: Task) -> Task:
        if not task.done:
            self.tasks.append(task)
        return task

    def step(self, chance: random.Random) -> None:
        if self.tasks:
            task = chance.choice(self.tasks)
            task.step()
            if task.done:
                self.tasks.remove(task)

    def outwait(self) -> None:
        """More time passes than any call may take: each ends, by an answer or without."""
        self.api.impatient = True
        for task in self.tasks:
            task.finish()
        self.tasks.clear()
        self.api.impatient = False

    def cut_off(self, chance: random.Random) -> None:
        """The process ends, or its network does for good: what is in flight arrives now or never."""
        self.api.alive = False
        for late in list(self.api.late):
            if chance.random() < 0.5:
                self.api.land(late)
        self.api.late.clear()
        for task in self.tasks:
            task.finish()
        self.tasks.clear()
