"""Fleets of nodes with real sizes, mixed models, scaled memory and cards of more than 100 %: fast against exact.

Nodes come and go, pods come and leave; after each event a decision over all nodes, or some by name, must say of every
node what an exact look at it says, and take the one that the policy prefers.
"""

from random import Random

from hypothesis import given, settings

from hami.ledger.cluster import Ledger
from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef, Weights
from hami.model.card import Card
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan
from hami.model.quota import Limit
from hami.plan.choose import Decision
from hami.plan.exact import score

from . import builders as make
from . import oracle
from .builders import NVIDIA, OTHER
from .world import QUANTA, judge

NODES, EVENTS = 30, 20
MODELS = (
    (NVIDIA, "NVIDIA-L40S", 46068),
    (NVIDIA, "NVIDIA-A100-SXM4-40GB", 40960),
    (NVIDIA, "NVIDIA-A10", 23028),
    (NVIDIA, "Tesla T4", 15360),
    (OTHER, "Z100", 32768),
)
SIZES = (0, 1, 1000, 5000, 7680, 15360, 20480, 23028, 40960, 46068, 60000)
POLICIES = (
    ("spread",),
    ("binpack",),
    ("mutex", "binpack"),
    ("numa", "spread"),
    (),
    ("topology-aware",),
    ("binpack", "numa"),
)


def random_record(random: Random, number: int) -> NodeRecord:
    kinds = random.sample(MODELS, random.choice((1, 1, 1, 2)))
    cards = tuple(
        random_card(random, f"n{number}-{index}", index, random.choice(kinds))
        for index in range(random.choice((1, 2, 4, 8)))
    )
    links: dict[CardId, dict[CardId, int]] = {}
    if random.random() < 0.3:
        for one in cards:
            for other in cards[one.index + 1 :]:
                worth = random.choice((10, 100, 400))
                links.setdefault(one.id, {})[other.id] = links.setdefault(other.id, {})[one.id] = worth
    cordoned = frozenset(card.id for card in cards if random.random() < 0.03)
    return NodeRecord(NodeName(f"n{number}"), cards, cordoned, None if random.random() < 0.96 else "silent", links)


def random_card(random: Random, name: str, index: int, kind: tuple) -> Card:
    family, model, mem = kind
    return Card(
        CardId(name), family, model, index,
        slots=random.choice((1, 2, 4, 10)),
        mem_mib=int(mem * random.choice((1, 1, 1, 1.5))),
        core_percent=random.choice((100, 100, 100, 200)),
        numa=index // 2,
        healthy=random.random() < 0.97,
    )  # fmt: skip


def random_want(random: Random) -> CardAsk:
    """Types and uuids that nobody has are among the rules."""
    rules = CardRules()
    if random.random() < 0.4:
        rules = CardRules(
            use_types=random.choice(((), ("A10",), ("a100", "l40"), ("H100",), ("t4",))),
            nouse_types=random.choice(((), ("a100",), ("tesla",))),
            use_ids=random.choice(((), (), ("n1-0", "n2-1", "gone"), ("gone",))),
            nouse_ids=random.choice(((), ("n3-0",))),
            numa_bind=random.random() < 0.4,
        )
    percent = random.choice((0, 1, 25, 33, 50, 99, 100)) if random.random() < 0.25 else None
    return CardAsk(
        random.choices((NVIDIA, OTHER), (8, 1))[0],
        random.choices((1, 2, 3, 4, 8), (8, 3, 1, 1, 1))[0],
        random.choice((0, 0, 1, 10, 30, 33, 50, 99, 100)),
        mem_mib=random.choice(SIZES) if percent is None else None,
        mem_percent=percent,
        rules=rules,
    )


def random_ask(random: Random, number: int) -> Ask:
    kinds = [random.choice((ContainerKind.INIT, ContainerKind.SIDECAR)) for _ in range(random.choice((0, 0, 0, 1, 2)))]
    kinds += [ContainerKind.APP] * random.choice((1, 1, 1, 2, 3))
    containers = []
    for kind in kinds:
        wanted = [random_want(random) for _ in range(random.choices((0, 1, 2), (1, 8, 1))[0])]
        containers.append(ContainerAsk("c", kind, tuple({want.family: want for want in wanted}.values())))
    return Ask(
        PodRef("ns", f"p{number}", PodUid(f"p{number}")),
        tuple(containers),
        random.choice(tuple(NodePolicy)),
        random.choice(POLICIES),
        Weights() if random.random() < 0.8 else Weights(slot=1, core=1, memory=3),
    )


class Fleet:
    def __init__(self, random: Random) -> None:
        self.ledger = Ledger()
        self.running: list[PodUid] = []
        for number in range(NODES):
            self.ledger.set_node(random_record(random, number))
        if random.random() < 0.3:
            limits = (
                Limit(one, random.choice((1, 50, 400, 20_000, 100_000))) for one in QUANTA if random.random() < 0.5
            )
            self.ledger.set_quota(QuotaRecord("ns", "q", tuple(limits)))

    def event(self, random: Random) -> None:
        chance = random.random()
        if chance < 0.15 and self.running:
            self.ledger.drop_pod(self.running.pop(random.randrange(len(self.running))))
        elif chance < 0.25:
            number = random.randrange(NODES)
            self.ledger.drop_node(NodeName(f"n{number}"))
            self.ledger.set_node(random_record(random, number))


@settings(max_examples=25, deadline=None)
@given(make.SEEDS)
def test_a_decision_says_of_every_node_what_an_exact_look_says(seed: int) -> None:
    random = Random(seed)
    fleet = Fleet(random)
    ledger = fleet.ledger
    for number in range(EVENTS):
        fleet.event(random)
        ask = random_ask(random, number)
        if ask.empty:
            continue
        states = {str(state.name): state for state in ledger.nodes()}
        names = None if random.random() < 0.4 else random.sample(sorted(states), random.randint(1, len(states)))
        decision = ledger.decide(ask, names)
        exact = {name: ledger.fit(ask, NodeName(name)) for name in (names or states)}
        assert sorted(decision.feasible) == sorted(name for name, one in exact.items() if isinstance(one, Plan))
        if not ledger.quotas.limited("ns"):
            said = {name: one.text for name, one in exact.items() if not isinstance(one, Plan)}
            assert decision.reasons() == said
            small = [name for name in exact if len(states[name].cards) <= 4][:5]
            assert all(isinstance(exact[name], Plan) == oracle.fits(ask, states[name]) for name in small)
        if decision.plan is not None:
            judge(ask, states[decision.plan.node], decision.plan)
            assert preferred(ask, decision, {name: score.node(states[name].cards) for name in decision.feasible})
            ledger.set_pod(PodRecord(ask.pod, decision.plan.node, decision.plan.containers, decision.plan.charges))
            fleet.running.append(ask.pod.uid)
    assert ledger.recount() == []


def preferred(ask: Ask, decision: Decision, scores: dict[str, float]) -> bool:
    """Whether the fullest or the emptiest was taken, the first by name; what else decides has tests of its own."""
    assert decision.plan is not None
    if ask.node_policy is NodePolicy.PACK or "topology-aware" in ask.card_policy:
        return True
    best = (max if ask.node_policy is NodePolicy.BINPACK else min)(scores.values())
    return bool(decision.plan.node == min(name for name, one in scores.items() if one == best))
