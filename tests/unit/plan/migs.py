"""What the tests of MIG are built from: a card's profiles, and every way there is to place instances."""

from collections.abc import Sequence
from itertools import product

from hami.model.ask import Ask
from hami.model.card import Card, Instance, MigProfile, Placement
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan.exact import mig
from hami.plan.exact.fit import fit
from hami.plan.snapshot import CardState, NodeState

from .builders import app, card, node, pod, want


def profile(name: str, mem: int, core: int, size: int, *starts: int, slices: int = 0) -> MigProfile:
    return MigProfile(name, mem, core, slices or size, tuple(Placement(start, size) for start in starts))


A100 = (
    profile("1g.5gb", 4864, 15, 1, *range(7)),
    profile("2g.10gb", 9856, 29, 2, 0, 2, 4),
    profile("3g.20gb", 19968, 43, 4, 0, 4, slices=3),
    profile("7g.40gb", 40192, 100, 8, 0, slices=7),
)


def mig_card(name: str = "d0", profiles: tuple[MigProfile, ...] = A100, **fields: object) -> Card:
    return card(name, **({"mode": "mig", "mig_profiles": profiles, "mem_mib": 40960, "slots": 7} | fields))


def empty(*names: str) -> NodeState:
    return node(*(CardState(mig_card(name)) for name in names or ("d0",)))


def places(result: Plan | Refusal) -> list[tuple[str, str, int]]:
    assert isinstance(result, Plan), result
    found = []
    for container in result.containers:
        for part in container:
            assert part.instance is not None
            found.append((part.card, part.instance.profile, part.instance.start))
    return found


def placed(state: NodeState, ask: Ask) -> NodeState:
    plan = fit(ask, state)
    assert isinstance(plan, Plan), plan
    return state.bearing(plan.charges)


def one(mem: int, cards: int = 1, **more: object) -> Ask:
    return pod(app(want(mem, cards=cards, **more)))


def refusal(state: NodeState, ask: Ask) -> Refusal:
    found = fit(ask, state)
    assert isinstance(found, Refusal)
    return found


def brute(profiles: Sequence[MigProfile], taken: int, needs: Sequence[mig.Need]) -> list[tuple[Instance, ...]]:
    """Every way, the slow way."""
    options = [
        [
            Instance(each.name, place.start, place.size)
            for each in profiles
            if each.mem_mib >= need.mem_mib and each.core_percent >= need.core_percent
            for place in each.placements
        ]
        for need in needs
    ]

    def slices(way: tuple[Instance, ...]) -> list[int]:
        return [one for each in way for one in range(each.start, each.start + each.size)]

    busy = {bit for bit in range(16) if taken >> bit & 1}
    return [
        way for way in product(*options) if len(set(slices(way))) == len(slices(way)) and not busy & set(slices(way))
    ]


def largest(profiles: Sequence[MigProfile], taken: int, way: Sequence[Instance]) -> int:
    """MiB of the largest profile that still has a place."""
    busy = {bit for bit in range(16) if taken >> bit & 1}
    busy |= {bit for each in way for bit in range(each.start, each.start + each.size)}
    return max(
        (
            each.mem_mib
            for each in profiles
            for place in each.placements
            if not busy & set(range(place.start, place.start + place.size))
        ),
        default=0,
    )


def memory(profiles: Sequence[MigProfile], way: Sequence[Instance]) -> int:
    sizes = {each.name: each.mem_mib for each in profiles}
    return sum(sizes[each.profile] for each in way)
