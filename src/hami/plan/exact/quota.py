"""Whether a pod stays within its namespace's quota: at admission on what it asks, at plan on what it would get.

A pod spends what Kubernetes would count for it: the larger of the highest init phase and of all that
runs on together (an init container beside the sidecars before it). A percentage becomes MiB with a card,
so until one is chosen it counts nothing, and the plan is judged by what it takes.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, ContainerKind
from hami.model.ids import Family
from hami.model.quota import Budget, Measure, Spent
from hami.model.refusal import Reason, Refusal
from hami.plan.exact.charge import Parts

_Load = tuple[int, int, int]
"""Cards, MiB, percent."""

_NOTHING: _Load = (0, 0, 0)
WHOLE = 100
"""Percent of a card that an instance has at most."""


def spent(containers: Parts, init_done: bool = False) -> tuple[Spent, ...]:
    """What a pod with these slices spends, a family each. With `init_done` only sidecars and app containers count."""
    return _count(
        (
            (kind, [(part.family, (1, part.mem_mib, part.core_percent)) for part in slices])
            for kind, slices in containers
        ),
        init_done,
    )


def asked(ask: Ask) -> tuple[Spent, ...]:
    """The least a pod will spend, whatever cards it gets."""
    return _asked(ask, lambda one: (one.mem_mib or 0, one.core_percent))


def at_most(ask: Ask, card_mib: int, grown: bool) -> tuple[Spent, ...]:
    """The most a pod will spend where no card has more than `card_mib`; `grown` as in `bounded`."""
    if grown:
        return _asked(ask, lambda one: (card_mib, max(one.core_percent, WHOLE)))
    return _asked(ask, lambda one: (one.mem_on(card_mib), one.core_percent))


def breach(budgets: Iterable[Budget], spending: Sequence[Spent]) -> str | None:
    """Which budget `spending` breaks, in words; None where all hold."""
    for budget in budgets:
        for one in spending:
            amount = one.of(budget.quantum.measure)
            if one.family == budget.quantum.family and amount > max(budget.left, 0):
                return budget.short(amount)
    return None


def refuse(ask: Ask, budgets: Sequence[Budget]) -> Refusal | None:
    """The refusal that holds for all nodes: the ask is too much wherever it goes."""
    why = breach(budgets, asked(ask))
    if why is None:
        why = next((why for budget in budgets if (why := _closed(ask, budget))), None)
    return None if why is None else refusal(why)


def refusal(why: str) -> Refusal:
    return Refusal(((Reason.QUOTA_NOT_FIT, 1),), 0, why)


def safe(ask: Ask, budgets: Sequence[Budget], card_mib: int, grown: bool) -> bool:
    """Whether the ask stays within `budgets` whatever cards it gets."""
    return breach(budgets, at_most(ask, card_mib, grown)) is None


def bounded(ask: Ask, budgets: Sequence[Budget], grown: bool) -> Ask:
    """`ask` with the budgets that depend on the cards it gets: of memory that is asked as a percentage,
    or, where slices may become larger than asked (`grown`, as MIG profiles do), all of them.
    """
    open_ended = {c.family for one in ask.containers for c in one.cards if c.mem_mib is None}
    kept = tuple(
        budget
        for budget in budgets
        if grown or (budget.quantum.measure is Measure.MEMORY and budget.quantum.family in open_ended)
    )
    return replace(ask, budgets=kept) if kept else ask


def _closed(ask: Ask, budget: Budget) -> str | None:
    """A limit of 0 is a locked door: also for who asks a percentage."""
    quantum = budget.quantum
    if budget.most > 0 or quantum.measure is not Measure.MEMORY:
        return None
    percent = max((c.mem_percent or 0 for one in ask.containers for c in one.cards if c.family == quantum.family),
                  default=0)  # fmt: skip
    return f"namespace {budget.namespace}: {quantum.key}: asked {percent} % of a card, limit 0" if percent else None


def _asked(ask: Ask, shares: Callable[[CardAsk], tuple[int, int]]) -> tuple[Spent, ...]:
    """What the pod spends if each card of an ask takes so many MiB and percent."""
    return _count((one.kind, [(c.family, _times(c.cards, *shares(c))) for c in one.cards]) for one in ask.containers)


def _times(cards: int, mem_mib: int, core_percent: int) -> _Load:
    return cards, cards * mem_mib, cards * core_percent


def _count(
    containers: Iterable[tuple[ContainerKind, Sequence[tuple[Family, _Load]]]], init_done: bool = False
) -> tuple[Spent, ...]:
    running: dict[Family, _Load] = {}
    peak: dict[Family, _Load] = {}
    for kind, parts in containers:
        phase = dict(running)
        for family, load in parts:
            phase[family] = _sum(phase.get(family, _NOTHING), load)
        if kind is not ContainerKind.INIT:
            running = phase
        elif not init_done:
            _raise(peak, phase)
    _raise(peak, running)
    return tuple(Spent(family, *peak[family]) for family in sorted(peak))


def _raise(peak: dict[Family, _Load], phase: dict[Family, _Load]) -> None:
    for family, load in phase.items():
        top = peak.get(family, _NOTHING)
        peak[family] = (max(top[0], load[0]), max(top[1], load[1]), max(top[2], load[2]))


def _sum(one: _Load, other: _Load) -> _Load:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
