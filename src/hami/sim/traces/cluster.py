"""A cluster in a replay: the real ledger for cards, and beside it the hosts' CPU and memory.

kube-scheduler tests CPU and memory before it asks an extender; here `hosts` does. What is used
of cards is only read back from the ledger's own states, so whoever places, the engine counts.
Virtual time is whatever the caller passes.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.snapshot import CardState
from hami.sim.traces.inflate import cards_worth, largest_card
from hami.sim.traces.trace import Job, Machine

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FAMILY = Family("GPU")
FULL = 1000
"""Units of a whole card in `Cluster.room`."""
WHOLE_CORES = 100
"""An ask of so many percent is for a card that nobody else is on."""
CLASSES, WITHOUT, SHARING = 6, 0, 1
HOLD = 30.0


class Placed(Struct, frozen=True):
    """A job that runs, on a row."""

    job: Job
    row: int


class Cluster:
    """Rows are places in `machines`. Columns here follow the ledger and the placed jobs."""

    def __init__(self, machines: Sequence[Machine], policy: NodePolicy = NodePolicy.BINPACK) -> None:
        self.machines = tuple(machines)
        self.policy = policy
        self.names = [machine.name for machine in machines]
        self._rows = {name: row for row, name in enumerate(self.names)}
        self.ledger = Ledger()
        rows, width = len(machines), max((machine.cards for machine in machines), default=1)
        self.cpu = np.array([machine.cpu_milli for machine in machines], np.int64)
        self.mem = np.array([machine.mem_mib for machine in machines], np.int64)
        self.cards = np.array([machine.cards for machine in machines], np.int64)
        self.models = tuple(sorted({machine.model for machine in machines if machine.cards}))
        self.model = np.array([self._model(machine) for machine in machines], np.int64)
        self.room = np.zeros((rows, max(width, 1)), np.int64)
        """Thousandths free of each card, the scarcer of memory and cores, rounded down."""
        self._free = np.full((3, *self.room.shape), -1, np.int64)
        """[MiB, percent, slots] free of each card; -1 where there is none."""
        self._card_mem = np.array([machine.card_mem for machine in machines], np.int64)
        self._idle = np.zeros(self.room.shape, np.bool_)
        sizes = [(machine.card_mem, machine.card_core) for machine in machines]
        self.sizes = tuple(dict.fromkeys(sizes))
        """Kinds of cards by what they hold, memory and cores; `size` is the place of each row's."""
        self.size = np.array([self.sizes.index(size) for size in sizes], np.int64)
        self._largest = largest_card(self.machines)
        self.capacity = sum(machine.cards * machine.card_mem for machine in machines) / self._largest
        """All cards, in cards of the largest size."""
        self.classes = np.zeros((rows, CLASSES), np.int64)
        """Jobs placed by class: without cards, sharing one, with 1, 2, 4, or 8 cards or more."""
        self.version = np.ones(rows, np.int64)
        self.placed: dict[str, Placed] = {}
        self.gpus = int(self.cards.sum())
        for row, machine in enumerate(machines):
            if machine.cards:
                self.ledger.set_node(NodeRecord(NodeName(machine.name), cards_of(machine)))
            self._refresh(row)

    # What there is to choose from.

    def hosts(self, job: Job) -> Bools:
        """Rows with enough CPU and memory left, as kube-scheduler's own filter finds them."""
        found: Bools = (self.cpu >= job.cpu_milli) & (self.mem >= job.mem_mib)
        return found

    def row(self, name: str) -> int:
        return self._rows[name]

    def ask(self, job: Job, cards: Sequence[CardId] = ()) -> Ask:
        """The job as the engine sees it; with `cards`, on these only."""
        rules = CardRules(use_types=job.models, use_ids=tuple(cards))
        mem = {"mem_percent": job.card_percent} if job.card_percent else {"mem_mib": job.card_mem}
        want = CardAsk(FAMILY, job.cards, job.card_core, **mem, rules=rules)
        containers = (ContainerAsk("main", ContainerKind.APP, (want,) if job.cards else ()),)
        ref = PodRef("replay", job.name, PodUid(job.name))
        return Ask(ref, containers, node_policy=self.policy, cpu_milli=job.cpu_milli)

    def able(self, job: Job, rows: Ints) -> Bools:
        """[row][card]: whether the card has room for a slice of the job, exactly and by the engine's own rules."""
        mem, core, slots = self._free[:, rows]
        need = self._card_mem[rows][:, None] * job.card_percent // 100 if job.card_percent else job.card_mem
        found: Bools = (mem >= need) & (core >= job.card_core) & (slots > 0)
        if job.card_core == 0:
            found &= core > 0
        elif job.card_core == WHOLE_CORES:
            found &= self._idle[rows]
        return found

    def shares(self, job: Job) -> Ints:
        """Thousandths of each of its cards that the job takes, by size of cards, rounded down as `room` is."""
        return np.array([_thousandths(job, *size) for size in self.sizes], np.int64)

    def worth(self, job: Job) -> float:
        """What the job asks, in cards of the largest size."""
        return cards_worth(job, self._largest)

    def class_of(self, job: Job) -> int:
        """The column of `classes` that counts the job."""
        if job.cards == 1 and self.worth(job) < 1:
            return SHARING
        return 1 + min(job.cards, 8).bit_length() if job.cards else WITHOUT

    def card_ids(self, row: int, places: Sequence[int]) -> list[CardId]:
        return [CardId(f"{self.names[row]}/{place}") for place in places]

    # What changes.

    def place(self, job: Job, row: int, plan: Plan | None, now: float) -> None:
        """The job runs on `row` from now on; `plan` is the engine's, None for one without cards."""
        if plan is not None:
            ask = self.ask(job)
            self.ledger.reserve(ask, plan, now, HOLD)
            record = PodRecord(plan.pod, plan.node, plan.containers, plan.charges)
            self.ledger.set_pod(record)
        self.placed[job.name] = Placed(job, row)
        self.classes[row, self.class_of(job)] += 1
        self.cpu[row] -= job.cpu_milli
        self.mem[row] -= job.mem_mib
        self._refresh(row)

    def remove(self, name: str) -> int:
        """The job ends; the row that has room again."""
        job, row = (gone := self.placed.pop(name)).job, gone.row
        if job.cards:
            self.ledger.drop_pod(PodUid(name))
        self.classes[row, self.class_of(job)] -= 1
        self.cpu[row] += job.cpu_milli
        self.mem[row] += job.mem_mib
        self._refresh(row)
        return row

    # What is reported.

    def allocated(self) -> float:
        """Cards' worth of shares that are taken."""
        free: int = self.room.sum()
        return self.gpus - int(free) / FULL

    def overcommitted(self) -> list[str]:
        """Rows on which more is taken than there is; must be empty."""
        bad = (self.cpu < 0) | (self.mem < 0) | (self.room < 0).any(axis=1)
        return [self.names[row] for row in np.flatnonzero(bad)]

    def _model(self, machine: Machine) -> int:
        return self.models.index(machine.model) if machine.cards else -1

    def _refresh(self, row: int) -> None:
        self.version[row] += 1
        machine = self.machines[row]
        if not machine.cards:
            return
        state = self.ledger.node(NodeName(machine.name))
        assert state is not None
        cards, here = state.cards, (row, slice(machine.cards))
        self.room[here] = [_room(card) for card in cards]
        self._free[0][here] = [card.free_mem_mib for card in cards]
        self._free[1][here] = [card.free_core_percent for card in cards]
        self._free[2][here] = [card.card.slots - card.used_slots for card in cards]
        self._idle[here] = [not card.used_slots for card in cards]
        self.ledger.set_host(NodeName(machine.name), int(self.cpu[row]), machine.cpu_milli)


def cards_of(machine: Machine) -> tuple[Card, ...]:
    """The machine's cards as its agent would register them."""
    return tuple(
        Card(
            id=CardId(f"{machine.name}/{index}"),
            family=FAMILY,
            model=machine.model,
            index=index,
            slots=machine.card_slots,
            mem_mib=machine.card_mem,
            core_percent=machine.card_core,
        )
        for index in range(machine.cards)
    )


def _thousandths(job: Job, card_mem: int, card_core: int) -> int:
    mem = card_mem * job.card_percent // 100 if job.card_percent else job.card_mem
    return max(mem * FULL // card_mem, job.card_core * FULL // card_core)


def _room(state: CardState) -> int:
    card = state.card
    return min(state.free_mem_mib * FULL // card.mem_mib, state.free_core_percent * FULL // card.core_percent)
