"""Random clusters with everything in them at once, and a slow judge of any plan on them.

Nodes with and without MIG, with and without links between their cards, two families, quotas, every policy.
"""

from itertools import combinations
from random import Random

from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord
from hami.model.ask import Ask, ContainerAsk, ContainerKind, NodePolicy
from hami.model.card import Card, Placement
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan, Slice
from hami.model.quota import Limit, Measure, Quantum
from hami.plan.snapshot import CardState, NodeState

from . import builders as make
from .builders import NVIDIA, OTHER
from .migs import profile

PROFILES = (
    profile("1g", 3, 15, 1, *range(7)),
    profile("2g", 5, 29, 2, 0, 2, 4),
    profile("3g", 10, 43, 4, 0, 4, slices=3),
)
"""In the sizes that random asks have."""
QUANTA = (
    Quantum("mem", NVIDIA, Measure.MEMORY),
    Quantum("cores", NVIDIA, Measure.CORES),
    Quantum("count", NVIDIA, Measure.CARDS),
    Quantum("dcu", OTHER, Measure.MEMORY),
)
CARD_POLICIES = (
    ("spread",), ("binpack",), ("mutex", "binpack"), ("numa", "spread"), (),
    ("topology-aware",), ("topology-aware", "binpack"), ("mutex", "topology-aware"),
)  # fmt: skip


def random_record(random: Random, name: str) -> NodeRecord:
    cards, cordoned = [], set()
    for state in make.random_node(random, name).cards:
        own = replace(state.card, id=CardId(f"{name}-{state.card.id}"))
        if own.family == NVIDIA and random.random() < 0.25:
            own = replace(own, mode="mig", mig_profiles=PROFILES, slots=7, mem_mib=20, core_percent=100)
        cards.append(own)
        if state.cordoned:
            cordoned.add(own.id)
    links: dict[CardId, dict[CardId, int]] = {}
    if random.random() < 0.5:
        for one, two in combinations(cards, 2):
            worth = random.choice((0, 10, 50, 100))
            links.setdefault(one.id, {})[two.id] = links.setdefault(two.id, {})[one.id] = worth
    problem = None if random.random() < 0.95 else "no handshake"
    return NodeRecord(NodeName(name), tuple(cards), frozenset(cordoned), problem, links)


def random_ask(random: Random, uid: str) -> Ask:
    ask = make.random_ask(random)
    rules = {"use_ids": ("n0-d0", "n1-d1", "n2-d0")} if random.random() < 0.05 else {}
    containers = tuple(
        replace(one, cards=tuple(replace(want, rules=replace(want.rules, **rules)) for want in one.cards))
        for one in ask.containers
    )
    return replace(
        ask,
        pod=replace(ask.pod, uid=PodUid(uid), name=uid),
        containers=containers,
        node_policy=random.choice(tuple(NodePolicy)),
        card_policy=random.choice(CARD_POLICIES),
    )


def random_quota(random: Random) -> QuotaRecord:
    limits = tuple(Limit(quantum, random.randrange(5, 60)) for quantum in QUANTA if random.random() < 0.3)
    return QuotaRecord("ns", "q", limits)


class World:
    """A ledger, and what it was told."""

    def __init__(self, random: Random) -> None:
        self.records = [random_record(random, f"n{number}") for number in range(random.choice((1, 3, 5)))]
        self.quota = random_quota(random) if random.random() < 0.4 else None
        self.ledger = self.told(self.records)

    def told(self, records: list[NodeRecord]) -> Ledger:
        ledger = Ledger()
        for record in records:
            ledger.set_node(record)
        if self.quota is not None and self.quota.limits:
            ledger.set_quota(self.quota)
        return ledger

    def most(self, quantum: Quantum) -> int | None:
        """What the namespace may have of a resource."""
        limits = self.quota.limits if self.quota else ()
        return next((limit.most for limit in limits if limit.quantum == quantum), None)


def judge(ask: Ask, state: NodeState, plan: Plan) -> None:
    """Fails unless the plan is what was asked, on cards that may be given, within every card at every moment."""
    assert state.problem is None
    assert (plan.pod, plan.node, plan.generation) == (ask.pod, state.name, state.generation)
    assert len(plan.containers) == len(ask.containers)
    cards = {one.card.id: one for one in state.cards}
    for container, slices in zip(ask.containers, plan.containers, strict=True):
        _judge_container(ask, container, slices, cards)
    _judge_life(ask, plan, cards)
    _judge_charges(plan, cards)


def _judge_container(
    ask: Ask, container: ContainerAsk, slices: tuple[Slice, ...], cards: dict[CardId, CardState]
) -> None:
    assert len(slices) == sum(want.cards for want in container.cards)
    for want in container.cards:
        own = [part for part in slices if part.family == want.family]
        assert len(own) == want.cards
        shared = [part.card for part in own if part.instance is None]
        assert len(set(shared)) == len(shared), "one container, different cards"
        assert not want.rules.numa_bind or len({cards[part.card].card.numa for part in own}) <= 1
        for part in own:
            state = cards[part.card]
            card, rules, model = state.card, want.rules, state.card.model.lower()
            assert card.family == want.family
            assert card.healthy
            assert not state.cordoned
            assert not rules.use_types or any(word.lower() in model for word in rules.use_types)
            assert not any(word.lower() in model for word in rules.nouse_types)
            assert not rules.modes or card.mode in rules.modes
            assert not rules.use_ids or card.id in rules.use_ids
            assert card.id not in rules.nouse_ids
            assert "mutex" not in ask.card_policy or state.used_slots == 0
            mem = want.mem_mib if want.mem_mib is not None else card.mem_mib * (want.mem_percent or 0) // 100
            if part.instance is None:
                assert card.mode != "mig"
                assert (part.mem_mib, part.core_percent) == (mem, want.core_percent)
            else:
                _judge_instance(part, card, mem, want.core_percent)


def _judge_instance(part: Slice, card: Card, mem: int, cores: int) -> None:
    """The smallest profile that has what was asked, at a place that the card offers."""
    assert part.instance is not None
    own = next(one for one in card.mig_profiles if one.name == part.instance.profile)
    assert (part.mem_mib, part.core_percent) == (own.mem_mib, own.core_percent)
    assert own.mem_mib >= min(mem, card.mig_profiles[-1].mem_mib), "all of a card is its largest profile"
    assert own.core_percent >= cores
    assert Placement(part.instance.start, part.instance.size) in own.placements


def _judge_life(ask: Ask, plan: Plan, cards: dict[CardId, CardState]) -> None:
    """What runs together at each moment, beside what others have, is within each card. Instances stay to the end."""
    running: list[Slice] = []
    lasting = [part for slices in plan.containers for part in slices if part.instance is not None]
    for container, slices in zip(ask.containers, plan.containers, strict=True):
        shares = [part for part in slices if part.instance is None]
        _judge_moment([*running, *shares, *lasting], cards)
        if container.kind is not ContainerKind.INIT:
            running += shares
    _judge_moment([*running, *lasting], cards)


def _judge_moment(parts: list[Slice], cards: dict[CardId, CardState]) -> None:
    for card_id in {part.card for part in parts}:
        state, here = cards[card_id], [part for part in parts if part.card == card_id]
        assert state.used_slots + len(here) <= state.card.slots
        if state.card.mode != "mig":  # there places are what counts; the profiles' numbers are rounded
            assert state.used_mem_mib + sum(part.mem_mib for part in here) <= state.card.mem_mib
            assert state.used_core_percent + sum(part.core_percent for part in here) <= state.card.core_percent
        alone = [part for part in here if part.instance is None and part.core_percent == 100]
        assert not alone or state.card.core_percent != 100 or (len(here) == 1 and state.used_slots == 0)
        instances = [*state.instances, *(part.instance for part in here if part.instance is not None)]
        taken = [slot for one in instances for slot in range(one.start, one.start + one.size)]
        assert len(set(taken)) == len(taken), "places apart"


def _judge_charges(plan: Plan, cards: dict[CardId, CardState]) -> None:
    """Each card is charged no less than any container alone, and no more than all together."""
    parts = [part for slices in plan.containers for part in slices]
    assert [one.card for one in plan.charges] == sorted({part.card for part in parts})
    for one in plan.charges:
        here = [part for part in parts if part.card == one.card]
        assert max(part.mem_mib for part in here) <= one.mem_mib <= sum(part.mem_mib for part in here)
        assert 1 <= one.slots <= len(here)
        assert one.instances == tuple(sorted(part.instance for part in here if part.instance is not None))


def worth(state: NodeState, cards: tuple[CardId, ...] | list[CardId]) -> int:
    """The sum over all pairs of what their links are worth."""
    return sum(state.links.get(one, {}).get(two, 0) for one, two in combinations(cards, 2))
