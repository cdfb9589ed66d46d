"""The rules again, written slowly and from the text of the reference: judges plans, finds them by trying everything."""

from collections.abc import Iterator
from itertools import combinations

from hami.model.ask import Ask, CardAsk, ContainerKind
from hami.model.plan import Plan
from hami.plan.snapshot import CardState, NodeState

Taken = dict[str, tuple[int, int, int]]
"""Card id -> slots, MiB, percent, over the node's own use."""


def accepts(ask: CardAsk, state: CardState, taken: Taken, mutex: bool) -> bool:
    card, rules = state.card, ask.rules
    more = taken.get(card.id, (0, 0, 0))
    slots = state.used_slots + more[0]
    mem = state.used_mem_mib + more[1]
    cores = state.used_core_percent + more[2]
    model = card.model.lower()
    needed = ask.mem_mib if ask.mem_mib is not None else card.mem_mib * ask.mem_percent // 100
    return all(
        (
            card.family == ask.family,
            card.healthy,
            not state.cordoned,
            not rules.use_types or any(word.lower() in model for word in rules.use_types),
            not any(word.lower() in model for word in rules.nouse_types),
            not rules.modes or card.mode in rules.modes,
            not rules.use_ids or card.id in rules.use_ids,
            card.id not in rules.nouse_ids,
            slots + 1 <= card.slots,
            not (mutex and slots > 0),
            mem + needed <= card.mem_mib,
            cores + ask.core_percent <= card.core_percent,
            not (ask.core_percent == 100 and card.core_percent == 100 and slots > 0),
            not (ask.core_percent == 0 and card.core_percent > 0 and cores >= card.core_percent),
        )
    )


def ways(
    ask: Ask, node: NodeState, place: int = 0, taken: Taken | None = None
) -> Iterator[list[list[tuple[str, ...]]]]:
    """Every way to serve the containers from `place` on: per container, per family, the cards."""
    taken = taken or {}
    if place == len(ask.containers):
        yield []
        return
    container = ask.containers[place]
    for chosen, after in _container_ways(ask, node, container.cards, taken):
        left = taken if container.kind is ContainerKind.INIT else after
        for rest in ways(ask, node, place + 1, left):
            yield [chosen, *rest]


def _container_ways(
    ask: Ask, node: NodeState, wanted: tuple[CardAsk, ...], taken: Taken
) -> Iterator[tuple[list[tuple[str, ...]], Taken]]:
    if not wanted:
        yield [], taken
        return
    first, *rest = wanted
    cards = [state for state in node.cards if accepts(first, state, taken, "mutex" in ask.card_policy)]
    for chosen in combinations(cards, first.cards):
        if first.rules.numa_bind and len({state.card.numa for state in chosen}) > 1:
            continue
        after = dict(taken)
        for state in chosen:
            slots, mem, cores = after.get(state.card.id, (0, 0, 0))
            needed = first.mem_mib if first.mem_mib is not None else state.card.mem_mib * first.mem_percent // 100
            after[state.card.id] = (slots + 1, mem + needed, cores + first.core_percent)
        for others, end in _container_ways(ask, node, tuple(rest), after):
            yield [tuple(state.card.id for state in chosen), *others], end


def fits(ask: Ask, node: NodeState) -> bool:
    return node.problem is None and next(ways(ask, node), None) is not None


def judge(ask: Ask, node: NodeState, plan: Plan) -> None:
    """Fails unless `plan` is one of the ways, spelled right, and within every card's capacity at every moment."""
    assert plan.node == node.name
    assert plan.generation == node.generation
    assert len(plan.containers) == len(ask.containers)
    spelled = []
    for container, slices in zip(ask.containers, plan.containers, strict=True):
        families = {want.family: want for want in container.cards}
        for part in slices:
            card = next(state.card for state in node.cards if state.card.id == part.card)
            assert card.family == part.family
            want = families[part.family]
            assert part.core_percent == want.core_percent
            if want.mem_mib is not None:
                assert part.mem_mib == want.mem_mib
            else:
                assert part.mem_mib == card.mem_mib * want.mem_percent // 100
        spelled.append([frozenset(p.card for p in slices if p.family == want.family) for want in container.cards])
        assert len(slices) == sum(want.cards for want in container.cards)
    assert spelled in ([[frozenset(cards) for cards in container] for container in way] for way in ways(ask, node))
    _judge_moments(ask, node, plan)


def _judge_moments(ask: Ask, node: NodeState, plan: Plan) -> None:
    """Play the pod's life: what runs together at each moment is within capacity and within the charge."""
    charge = {one.card: one for one in plan.charges}
    assert list(charge) == sorted(charge)
    running: list[int] = []
    for number, container in enumerate(ask.containers):
        if container.kind is not ContainerKind.INIT:
            running.append(number)
            continue
        _judge_moment(node, plan, [*running, number], charge)
    _judge_moment(node, plan, running, charge)


def _judge_moment(node: NodeState, plan: Plan, running: list[int], charge: dict) -> None:
    for state in node.cards:
        here = [[part for part in plan.containers[number] if part.card == state.card.id] for number in running]
        slots = sum(bool(parts) for parts in here)
        mem = sum(part.mem_mib for parts in here for part in parts)
        cores = sum(part.core_percent for parts in here for part in parts)
        if not slots:
            continue
        assert state.used_slots + slots <= state.card.slots
        assert state.used_mem_mib + mem <= state.card.mem_mib
        assert state.used_core_percent + cores <= state.card.core_percent
        one = charge[state.card.id]
        assert (slots, mem, cores) <= (one.slots, one.mem_mib, one.core_percent)
        assert slots <= one.slots
        assert mem <= one.mem_mib
        assert cores <= one.core_percent
