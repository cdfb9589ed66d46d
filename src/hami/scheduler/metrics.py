"""/metrics: the process's figures, and every card's and slice's, with HAMi's family names.

Lines of a node are made once a change of it (its generation) and kept, and the
page goes out in pieces: 40,000 cards must not keep a filter waiting.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from aiohttp import hdrs, web
from prometheus_client import generate_latest

from hami.kube.watch import Contact
from hami.ledger.quota import Quotas
from hami.ledger.records import PodRecord
from hami.model.reservation import ReservationState
from hami.model.vendor import Vendor
from hami.observe.exposition import Family, Sample, Sheet
from hami.observe.metrics import CONTENT_TYPE
from hami.plan.snapshot import CardState, NodeState
from hami.scheduler.engine import Engine
from hami.scheduler.gate import Gate

MIB = 1 << 20
SLICE = 0.002
"""Seconds of work before the loop may do something else."""
PIECE = 256 * 1024

ZONE = (("zone", "vGPU"),)


def family(name: str, words: str) -> Family:
    return Family(name, words, constant=ZONE)


MEM_LIMIT = family("hami_gpu_memory_limit_bytes", "Memory a card offers, after the node's memory scaling.")
CORE_LIMIT = family("hami_gpu_core_limit_ratio", "Compute a card offers, in percent of the card.")
MEM_ALLOCATED = family("hami_gpu_memory_allocated_bytes", "Memory of a card given to slices.")
SHARED = family("hami_gpu_shared_count", "Slices on a card.")
CORE_ALLOCATED = family("hami_gpu_core_allocated_ratio", "Compute of a card given to slices, in percent of the card.")
OVERVIEW = family("hami_node_gpu_overview", "Memory of a card given to slices, in bytes; the card's size as labels.")
MEM_RATIO = family("hami_node_gpu_memory_allocated_ratio", "Share of a card's memory given to slices, 0 to 1.")
POD_MEM = family("hami_vgpu_memory_allocated_bytes", "Memory of a card given to one container of a pod.")
POD_CORE = family("hami_vgpu_core_allocated_ratio", "Compute of a card given to one container, in percent of the card.")
EXCLUDED = family("hami_node_excluded", "1 for a node that takes no pods now, with the reason.")

QUOTA_USED = family("hami_resource_quota_used", "What a namespace's pods take of a resource, in its own unit.")
QUOTA_LIMIT = family("hami_resource_quota_limit", "What a namespace's pods may take of a resource, in its own unit.")

CARD_FAMILIES = (MEM_LIMIT, CORE_LIMIT, MEM_ALLOCATED, SHARED, CORE_ALLOCATED, OVERVIEW, MEM_RATIO, EXCLUDED)
POD_FAMILIES = (POD_MEM, POD_CORE)


class MetricsPage:
    """Answers GET /metrics."""

    def __init__(self, engine: Engine, gate: Gate, contacts: Mapping[str, Contact]) -> None:
        self._engine = engine
        self._gate = gate
        self._contacts = contacts
        self._sheet = Sheet((*CARD_FAMILIES, *POD_FAMILIES))
        self._quotas = Sheet((QUOTA_USED, QUOTA_LIMIT))
        self._refreshing = asyncio.Lock()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._refreshing:
            await self.refresh()
            self.count()
            response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})
            await response.prepare(request)
            await response.write(generate_latest(self._engine.meters.registry))
            self._quotas.put("", 0, quota_samples(self._engine.ledger.quotas, self._engine.vendors))
            await response.write(self._quotas.render())
            for piece in pieces(self._sheet.lines()):
                await response.write(piece)
                await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def refresh(self) -> None:
        """Bring the lines of changed nodes up to date, a little at a time."""
        ledger = self._engine.ledger
        started = time.perf_counter()
        states = list(ledger.nodes())
        for state in states:
            if not self._sheet.fresh(state.name, state.generation):
                pods = ledger.pods_on(state.name)
                self._sheet.put(state.name, state.generation, [*card_samples(state), *pod_samples(pods)])
            if time.perf_counter() - started > SLICE:
                await asyncio.sleep(0)
                started = time.perf_counter()
        self._sheet.keep_only(state.name for state in states)

    def count(self) -> None:
        """Figures that are cheaper counted here than kept."""
        meters, ledger = self._engine.meters, self._engine.ledger
        held = Counter(reservation.state for reservation in ledger.reservations())
        for kind in ReservationState:
            meters.reservations.labels(kind.value).set(held[kind])
        usable = Counter(state.problem is None for state in ledger.nodes())
        meters.nodes.labels("usable").set(usable[True])
        meters.nodes.labels("excluded").set(usable[False])
        meters.pods.set(len(ledger.pods()))
        meters.waiting.set(len(self._engine.waiting))
        meters.leading.set(self._gate.closed is None)
        for name, contact in self._contacts.items():
            meters.watch_cuts.labels(name).set(contact.cuts)
            meters.watch_events.labels(name).set(contact.events)


def card_samples(state: NodeState) -> Iterator[Sample]:
    """All samples of one node's cards."""
    if state.problem is not None:
        yield EXCLUDED, {"node": state.name, "reason": state.problem[:256]}, 1
    for card in state.cards:
        yield from one_card(state.name, card)


def one_card(node: str, state: CardState) -> Iterator[Sample]:
    card = state.card
    labels = {
        "node": node,
        "device_uuid": card.id,
        "device_index": str(card.index),
        "device_type": card.model,
    }
    cores = {**labels, "device_cores": str(card.core_percent)}
    allocated = state.used_mem_mib * MIB
    yield MEM_LIMIT, labels, card.mem_mib * MIB
    yield CORE_LIMIT, labels, card.core_percent
    yield MEM_ALLOCATED, cores, allocated
    yield SHARED, labels, state.used_slots
    yield CORE_ALLOCATED, labels, state.used_core_percent
    yield OVERVIEW, {**cores, "device_memory_limit": str(card.mem_mib)}, allocated
    if card.mem_mib:
        yield MEM_RATIO, labels, state.used_mem_mib / card.mem_mib


def pod_samples(pods: Iterable[PodRecord]) -> Iterator[Sample]:
    """What each container of each pod was given, card by card."""
    for pod in pods:
        for index, slices in enumerate(pod.containers):
            for one in slices:
                labels = {
                    "namespace": pod.ref.namespace,
                    "node": pod.node,
                    "pod": pod.ref.name,
                    "container_index": str(index),
                    "device_uuid": one.card,
                }
                yield POD_MEM, labels, one.mem_mib * MIB
                yield POD_CORE, labels, one.core_percent


def quota_samples(quotas: Quotas, vendors: Iterable[Vendor]) -> Iterator[Sample]:
    """Used and limit by namespace and resource; used also where nothing is limited."""
    quanta = [quantum for vendor in vendors for quantum in vendor.quotas]
    limits = {(budget.namespace, budget.quantum): budget.most for budget in quotas.all()}
    for namespace in sorted({*quotas.used(), *(namespace for namespace, _ in limits)}):
        spent = quotas.used().get(namespace, {})
        for quantum in quanta:
            most = limits.get((namespace, quantum))
            if most is None and quantum.family not in spent:
                continue
            labels = {"namespace": namespace, "quota_name": quantum.resource}
            limit = "" if most is None else f"{most / quantum.unit:g}"
            yield QUOTA_USED, {**labels, "limit": limit}, quotas.use(namespace, quantum) / quantum.unit
            if most is not None:
                yield QUOTA_LIMIT, labels, most / quantum.unit


def pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The page in parts of about `PIECE` bytes."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= PIECE:
            yield b"".join(part)
            part, size = [], 0
    yield b"".join(part)
