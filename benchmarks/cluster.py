"""A half-full cluster and a stream of mixed asks, the same for every benchmark and every run."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef, Weights
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Slice
from hami.plan.exact.charge import charges
from hami.plan.snapshot import CardState

NVIDIA = Family("NVIDIA")
MODELS = (
    ("NVIDIA-NVIDIA A100-SXM4-80GB", 81920),
    ("NVIDIA-NVIDIA H100 80GB HBM3", 81559),
    ("NVIDIA-Tesla V100-PCIE-32GB", 32768),
    ("NVIDIA-NVIDIA A10", 23028),
)


def node_names(nodes: int) -> list[str]:
    return [f"gpu-node-{number:05d}" for number in range(nodes)]


def node(name: str, cards: int, random_: random.Random) -> NodeRecord:
    model, mem = random_.choice(MODELS)
    return NodeRecord(
        NodeName(name),
        tuple(
            Card(
                id=CardId(f"GPU-{random_.getrandbits(128):032x}"),
                family=NVIDIA,
                model=model,
                index=index,
                slots=10,
                mem_mib=mem,
                core_percent=100,
                numa=index * 2 // cards,
            )
            for index in range(cards)
        ),
    )


def fill(ledger: Ledger, nodes: int, cards: int, pods: int, share: float, *, seed: int = 1) -> None:
    """Register nodes and bind pods on them, until `share` of the memory is taken or there are no more pods."""
    random_ = random.Random(seed)
    records = [node(name, cards, random_) for name in node_names(nodes)]
    for record in records:
        ledger.set_node(record)
    capacity = sum(card.mem_mib for record in records for card in record.cards)
    mean = int(capacity * share / max(pods, 1))
    for number in range(pods):
        record = random_.choice(records)
        card = random_.choice(record.cards)
        state = next(one for one in _states(ledger, record.name) if one.card.id == card.id)
        mem = min(state.free_mem_mib, max(500, random_.randrange(0, 2 * mean) // 500 * 500))
        cores = min(state.free_core_percent, random_.choice((0, 10, 20, 30, 50)))
        if state.free_slots <= 0:
            continue
        ledger.set_pod(_pod(number, record.name, Slice(card.id, NVIDIA, mem, cores)))


def tell_hosts(ledger: Ledger, nodes: int, *, seed: int = 4) -> None:
    """Give every host 64, 96 or 128 cores, some of them taken; the policy `pack` looks at it."""
    random_ = random.Random(seed)
    for name in node_names(nodes):
        ledger.set_host(NodeName(name), 1000 * random_.choice((64, 96, 128)) * random_.random())


def _states(ledger: Ledger, name: NodeName) -> tuple[CardState, ...]:
    state = ledger.node(name)
    return state.cards if state else ()


def _pod(number: int, name: NodeName, part: Slice) -> PodRecord:
    containers = ((part,),)
    ref = PodRef(
        f"team-{number % 50}", f"train-{number:06d}-abcde", PodUid(f"{number:08x}-0000-4000-8000-{number:012x}")
    )
    return PodRecord(ref, name, containers, charges([(ContainerKind.APP, containers[0])]))


def asks(seed: int = 2) -> Iterator[Ask]:
    """One after the other, for ever: small slices mostly, some whole cards, typed ones, several containers."""
    random_ = random.Random(seed)
    number = 0
    while True:
        number += 1
        ref = PodRef("bench", f"ask-{number}", PodUid(f"ask-{number}"))
        yield Ask(
            ref,
            _containers(random_),
            random_.choice((NodePolicy.BINPACK, NodePolicy.BINPACK, NodePolicy.SPREAD)),
            random_.choice((("spread",), ("binpack",))),
        )


POLICIES: dict[str, Callable[[Ask], Ask]] = {
    "binpack": lambda ask: replace(ask, node_policy=NodePolicy.BINPACK, card_policy=("binpack",)),
    "spread": lambda ask: replace(ask, node_policy=NodePolicy.SPREAD, card_policy=("spread",)),
    "mutex": lambda ask: replace(ask, card_policy=("mutex",)),
    "numa": lambda ask: replace(ask, card_policy=("numa", "binpack")),
    "numa-bind": lambda ask: _ruled(ask, numa_bind=True),
    "topology-aware": lambda ask: replace(ask, card_policy=("topology-aware",)),
    "weights": lambda ask: replace(ask, weights=Weights(slot=1, core=2, memory=5)),
    "nouse-type": lambda ask: _ruled(ask, nouse_types=("V100",)),
    "pack": lambda ask: replace(ask, node_policy=NodePolicy.PACK, cpu_milli=8000),
}
"""What turns an ask into one of each policy."""


def _ruled(ask: Ask, **rules: Any) -> Ask:
    containers = (
        replace(one, cards=tuple(replace(card, rules=replace(card.rules, **rules)) for card in one.cards))
        for one in ask.containers
    )
    return replace(ask, containers=tuple(containers))


def _containers(random_: random.Random) -> tuple[ContainerAsk, ...]:  # noqa: PLR0911 - a return a shape
    kind = random_.random()
    small = CardAsk(NVIDIA, 1, random_.choice((0, 10, 30)), mem_mib=random_.randrange(1, 60) * 500)
    if kind < 0.6:
        return (_app("main", small),)
    if kind < 0.7:
        return (_app("main", CardAsk(NVIDIA, random_.choice((1, 2, 4, 8)), 100, mem_percent=100)),)
    if kind < 0.8:
        return (_app("main", CardAsk(NVIDIA, 2, 20, mem_mib=random_.randrange(1, 40) * 1000)),)
    if kind < 0.87:
        rules = CardRules(use_types=(random_.choice(("A100", "H100", "V100")),))
        return (_app("main", CardAsk(NVIDIA, 1, 20, mem_mib=8000, rules=rules)),)
    if kind < 0.93:
        return (_app("main", CardAsk(NVIDIA, 1, 25, mem_percent=25)), ContainerAsk("log", ContainerKind.APP))
    if kind < 0.97:
        return (_app("main", small), _app("second", CardAsk(NVIDIA, 1, 10, mem_mib=4000)))
    init = ContainerAsk("init", ContainerKind.INIT, (small,))
    return (init, _app("a", CardAsk(NVIDIA, 1, 10, mem_mib=4000)), _app("b", small), _app("c", small))


def _app(name: str, ask: CardAsk) -> ContainerAsk:
    return ContainerAsk(name, ContainerKind.APP, (ask,))
