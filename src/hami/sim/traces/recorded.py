"""What `hami record` wrote, as a trace: a record of some hours, or a snapshot of one moment.

A machine has cards of one kind here: of a node with several kinds the most numerous one counts. A pod asks for one
kind of slice: of several asks the largest counts. Cards of several families are told apart by their models. Pods that
ended before they were bound have no life time and are left out; those that still run at the end never leave. CPU
and memory of hosts that nobody recorded are no limit. Times count from the start of the record.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from hami.model.ask import CardRules
from hami.model.errors import Malformed
from hami.model.ids import Family, NodeName, PodUid
from hami.plan.exact.rules import kind_accepted
from hami.sim.traces.trace import UNKNOWN, Job, Machine, Trace
from hami.wire import record, snapshot
from hami.wire.record import NodeSeen, PodArrived, PodBound, PodLeft, Start
from hami.wire.snapshot import CardAskEntry, NodeEntry, PodEntry

NOBODY = "no model of the record"
MIB = 2**20


def from_snapshot(body: bytes, source: str) -> Trace:
    """Nodes and pods of one moment; all pods arrive at once and none leaves. Raises `Malformed`."""
    found = snapshot.decode(body, source)
    machines = _machines(found.nodes)
    kinds = Kinds(found.nodes)
    jobs = [job for pod in found.pods if (job := kinds.job(pod, 0.0, None)) is not None]
    return Trace(machines, tuple(jobs))


def from_record(body: bytes, source: str) -> Trace:
    """Every node that was there, as it was last; every pod that asked, with the times seen. Raises `Malformed`."""
    seen = Seen()
    for line in record.decode(body.splitlines(keepends=True), source):
        seen.take(line)
    return seen.trace(source)


class Seen:
    """A record as far as it was read. Times are those of the file."""

    def __init__(self) -> None:
        self._began = 0.0
        self._nodes: dict[NodeName, NodeEntry] = {}
        self._pods: dict[PodUid, PodEntry] = {}
        self._arrived: dict[PodUid, float] = {}
        self._bound: dict[PodUid, float] = {}
        self._left: dict[PodUid, float] = {}

    def take(self, line: record.Line) -> None:
        if isinstance(line, Start):
            self._began = line.at
        elif isinstance(line, NodeSeen):
            self._nodes[line.node.name] = line.node
        elif isinstance(line, PodArrived):
            uid = line.pod.uid
            self._pods[uid] = line.pod
            self._arrived.setdefault(uid, line.pod.created or line.at)
            if line.pod.node is not None:
                self._bound.setdefault(uid, line.pod.bound or line.at)
        elif isinstance(line, PodBound):
            self._bound.setdefault(line.uid, line.at)
        elif isinstance(line, PodLeft):
            self._left.setdefault(line.uid, line.at)

    def trace(self, source: str) -> Trace:
        kinds, jobs = Kinds(self._nodes.values()), []
        for uid, pod in self._pods.items():
            arrives = max(self._arrived[uid] - self._began, 0.0)
            left, bound = self._left.get(uid), self._bound.get(uid)
            if left is not None and bound is None:
                continue
            began = max(bound or 0.0, self._began)  # of what ran before, the rest of its life
            leaves = None if left is None else arrives + max(left - began, 0.0)
            job = kinds.job(pod, arrives, leaves)
            if job is not None:
                jobs.append(job)
        machines = _machines(self._nodes.values())
        if not machines:
            raise Malformed(source, "no node with cards", "a record of a cluster with cards")
        return Trace(machines, tuple(jobs))


class Kinds:
    """Which models each family has, and how large its largest card is."""

    def __init__(self, nodes: Iterable[NodeEntry]) -> None:
        self._models: dict[Family, set[str]] = {}
        self._largest: dict[Family, int] = {}
        for node in nodes:
            for card in node.cards:
                self._models.setdefault(card.family, set()).add(card.model)
                self._largest[card.family] = max(self._largest.get(card.family, 0), card.mem_mib)

    def job(self, pod: PodEntry, arrives: float, leaves: float | None) -> Job | None:
        """None for a pod whose ask is not known, or asks for no card."""
        asks = [] if pod.ask is None else [ask for one in pod.ask.containers for ask in one.cards]
        if not asks:
            return None
        ask = max(asks, key=lambda one: (one.cards, self._mem(one), one.core_percent))
        models = self._accepted(ask)
        return Job(
            name=str(pod.uid),
            cpu_milli=pod.cpu_milli,
            mem_mib=pod.mem_bytes // MIB,
            cards=ask.cards,
            card_mem=ask.mem_mib or 0,
            card_percent=0 if ask.mem_mib is not None else ask.mem_percent or 0,
            card_core=ask.core_percent,
            models=models,
            arrives=arrives,
            leaves=leaves,
        )

    def _accepted(self, ask: CardAskEntry) -> tuple[str, ...]:
        """Words that the models it accepts have, and no others of the record; none where it accepts all."""
        use, nouse = ask.rules.use_types, ask.rules.nouse_types
        if nouse:
            rules, own = CardRules(use_types=use, nouse_types=nouse), self._models.get(ask.family, set())
            return tuple(sorted(model for model in own if kind_accepted(rules, model, ""))) or (NOBODY,)
        if use or len(self._models) <= 1:
            return use
        return tuple(sorted(self._models.get(ask.family, {str(ask.family)})))

    def _mem(self, ask: CardAskEntry) -> int:
        if ask.mem_mib is not None:
            return ask.mem_mib
        return self._largest.get(ask.family, 0) * (ask.mem_percent or 0) // 100


def _machines(nodes: Iterable[NodeEntry]) -> tuple[Machine, ...]:
    return tuple(_machine(node) for node in nodes if node.cards)


def _machine(node: NodeEntry) -> Machine:
    kinds: Mapping[tuple[str, int, int, int], int] = Counter(
        (card.model, card.mem_mib, card.core_percent, card.slots) for card in node.cards
    )
    (model, mem, core, slots), number = max(kinds.items(), key=lambda entry: (entry[1], entry[0]))
    return Machine(
        name=node.name,
        cpu_milli=node.cpu_milli or UNKNOWN,
        mem_mib=node.mem_bytes // MIB or UNKNOWN,
        cards=number,
        model=model,
        card_mem=max(mem, 1),
        card_core=max(core, 1),
        card_slots=max(slots, 1),
    )
