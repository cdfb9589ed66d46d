"""Small builders and strategies for asks, cards and nodes."""

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st
from msgspec.structs import replace

from hami.ledger.index import Index
from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef, Weights
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.plan.snapshot import CardState, Links, NodeState

NVIDIA = Family("NVIDIA")
OTHER = Family("DCU")


def card(name: str = "d0", **fields: object) -> Card:
    given: dict[str, object] = {
        "id": CardId(name),
        "family": NVIDIA,
        "model": "NVIDIA-A100",
        "index": int("".join(filter(str.isdigit, name)) or 0),
        "slots": 10,
        "mem_mib": 8000,
        "core_percent": 100,
    }
    return Card(**(given | fields))


def used(
    name: str = "d0", slots: int = 0, mem: int = 0, cores: int = 0, cordoned: bool = False, **fields: object
) -> CardState:
    return CardState(card(name, **fields), slots, mem, cores, cordoned)


def node(*cards: CardState, name: str = "node", generation: int = 1, problem: str | None = None) -> NodeState:
    return NodeState(NodeName(name), generation, cards, problem)


def want(
    mem: int | None = 1000,
    cores: int = 0,
    cards: int = 1,
    percent: int | None = None,
    family: Family = NVIDIA,
    **rules: object,
) -> CardAsk:
    if percent is not None:
        mem = None
    return CardAsk(family, cards, cores, mem_mib=mem, mem_percent=percent, rules=CardRules(**rules))


def app(*asks: CardAsk, name: str = "app") -> ContainerAsk:
    return ContainerAsk(name, ContainerKind.APP, asks)


def init(*asks: CardAsk) -> ContainerAsk:
    return ContainerAsk("init", ContainerKind.INIT, asks)


def sidecar(*asks: CardAsk) -> ContainerAsk:
    return ContainerAsk("sidecar", ContainerKind.SIDECAR, asks)


def pod(
    *containers: ContainerAsk,
    uid: str = "u",
    nodes: NodePolicy = NodePolicy.BINPACK,
    cards: tuple[str, ...] = ("spread",),
    weights: Weights = Weights(),  # noqa: B008
) -> Ask:
    return Ask(PodRef("ns", f"pod-{uid}", PodUid(uid)), containers, nodes, cards, weights)


# Random cases come from a seed: numbers are small, so that limits are met often, and thousands are made in a second.

IDS = tuple(f"d{index}" for index in range(6))
SEEDS = st.integers(0, 2**40)


def random_card(random: Random, name: str) -> CardState:
    family, model = random.choices(
        ((NVIDIA, "NVIDIA-A100"), (NVIDIA, "NVIDIA-V100"), (OTHER, "Hygon-Z100")), (6, 3, 1)
    )[0]
    slots, mem, core = random.choice((1, 2, 4)), random.choice((7, 10, 12)), random.choice((100, 100, 100, 200, 0))
    own = card(
        name,
        family=family,
        model=model,
        slots=slots,
        mem_mib=mem,
        core_percent=core,
        numa=random.randrange(2),
        mode=random.choices(("hami-core", "mps"), (9, 1))[0],
        healthy=random.random() < 0.93,
    )
    cordoned = random.random() < 0.07
    state = random.random()
    if state < 0.5:
        return CardState(own, cordoned=cordoned)
    if state < 0.95:
        return CardState(
            own, random.randint(1, slots), random.randint(0, mem), random.choice((0, 20, 50, core)), cordoned
        )
    return CardState(own, slots + 1, mem + 2, core + 10, cordoned)


def random_node(random: Random, name: str = "node", most: int = 5) -> NodeState:
    cards = tuple(random_card(random, IDS[index]) for index in range(random.choice((0, 1, *range(1, most + 1)))))
    return NodeState(NodeName(name), random.randrange(9), cards, None if random.random() < 0.95 else "no handshake")


def random_rules(random: Random) -> CardRules:
    return CardRules(
        use_types=random.choice(((), (), ("a100",), ("A100", "V100"), ("H100",))),
        nouse_types=random.choice(((), (), (), ("v100",))),
        use_ids=random.choice(((), (), (), ("d0", "d2"), ("zz",))),
        nouse_ids=random.choice(((), (), ("d1",))),
        modes=random.choice(((), (), ("hami-core",))),
        numa_bind=random.random() < 0.4,
    )


def random_want(random: Random, family: Family | None = None) -> CardAsk:
    percent = random.choice((0, 33, 50, 100)) if random.random() < 0.2 else None
    return CardAsk(
        family or random.choices((NVIDIA, OTHER), (9, 1))[0],
        random.choices((1, 2, 3), (8, 2, 1))[0],
        random.choice((0, 0, 10, 20, 50, 100)),
        mem_mib=random.choice((0, 1, 2, 3, 5, 8)) if percent is None else None,
        mem_percent=percent,
        rules=random_rules(random) if random.random() < 0.25 else CardRules(),
    )


def random_container(random: Random, kind: ContainerKind) -> ContainerAsk:
    shape = random.random()
    wanted = (random_want(random),) if shape < 0.85 else ()
    if shape > 0.95:
        wanted = (random_want(random, NVIDIA), random_want(random, OTHER))
    return ContainerAsk("c", kind, wanted)


def random_ask(random: Random) -> Ask:
    before = [
        random_container(random, random.choice((ContainerKind.INIT, ContainerKind.SIDECAR)))
        for _ in range(random.choice((0, 0, 1, 2)))
    ]
    apps = [random_container(random, ContainerKind.APP) for _ in range(random.choice((1, 1, 2, 3)))]
    if len(apps) > 1 and random.random() < 0.5:
        apps[-1] = apps[0]
    return Ask(
        PodRef("ns", "pod", PodUid("u")),
        (*before, *apps),
        random.choice(tuple(NodePolicy)),
        random.choice((("spread",), ("binpack",), ("mutex", "binpack"), ("numa", "spread"), ())),
    )


def random_crowd(random: Random) -> Ask:
    """A few containers of the same kind of cards, which have to share what there is."""
    kinds = [random.choice((ContainerKind.INIT, ContainerKind.SIDECAR)) for _ in range(random.choice((0, 0, 1)))]
    kinds += [ContainerKind.APP] * random.choice((2, 2, 3, 4))
    wanted = [
        CardAsk(
            NVIDIA, random.choice((1, 1, 1, 1, 2)), random.choice((0, 0, 20, 50, 60, 100)), random.choice((0, 1, 3, 5))
        )
        for _ in range(random.choice((1, 2, 3)))
    ]
    return pod(
        *(ContainerAsk("c", kind, (random.choice(wanted),)) for kind in kinds),
        cards=random.choice((("spread",), ("binpack",), ("mutex",))),
    )


def random_small_node(random: Random, name: str) -> NodeState:
    """One to three healthy cards of one model, some in use."""
    cards = []
    for index in range(random.choice((1, 1, 2, 3))):
        own = card(
            IDS[index], slots=random.choice((1, 2, 4)), mem_mib=10, core_percent=random.choice((100, 100, 200, 0))
        )
        cards.append(
            random.choice((CardState(own), CardState(own, 1, random.choice((0, 3)), random.choice((0, 40, 50)))))
        )
    return NodeState(NodeName(name), 1, tuple(cards))


def table(states: Sequence[NodeState]) -> Index:
    index = Index()
    for state in states:
        index.put(state)
    return index


def less_of(container: ContainerAsk, random: Random) -> ContainerAsk:
    return replace(container, cards=tuple(_less_cards(ask, random) for ask in container.cards))


def _less_cards(ask: CardAsk, random: Random) -> CardAsk:
    return replace(
        ask,
        cards=random.randint(1, ask.cards),
        mem_mib=None if ask.mem_mib is None else random.randint(0, ask.mem_mib),
        mem_percent=None if ask.mem_percent is None else random.randint(0, ask.mem_percent),
        # 0 is no smaller share but no share at all, with a rule of its own
        core_percent=ask.core_percent and random.randint(1, ask.core_percent),
    )


def linked(scores: dict[tuple[int, int], int], *, cards: int = 4, busy: tuple[int, ...] = ()) -> NodeState:
    states = tuple(used(f"d{number}", slots=int(number in busy)) for number in range(cards))
    return NodeState(NodeName("n"), 1, states, None, links(scores))


def links(scores: dict[tuple[int, int], int]) -> Links:
    found: dict[CardId, dict[CardId, int]] = {}
    for (one, two), score in scores.items():
        found.setdefault(CardId(f"d{one}"), {})[CardId(f"d{two}")] = score
        found.setdefault(CardId(f"d{two}"), {})[CardId(f"d{one}")] = score
    return found
