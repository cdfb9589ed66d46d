"""What a pod takes from each card while it runs, counted as Kubernetes counts containers.

Init containers run one after the other, sidecars stay on beside everything that
starts after them, app containers run together. So a card must hold the larger of
the highest init phase and the sum of all that keeps running.
"""

from collections.abc import Iterable, Sequence

from hami.model.ask import Ask, ContainerKind
from hami.model.ids import CardId
from hami.model.plan import Charge, ContainerSlices, Slice

Parts = Sequence[tuple[ContainerKind, ContainerSlices]]
"""What each container was given, in spec order, init containers first."""

_Load = tuple[int, int, int]
"""Slots, MiB, percent."""

_NOTHING: _Load = (0, 0, 0)


def parts_of(ask: Ask, containers: Iterable[ContainerSlices]) -> Parts:
    """What the containers of `ask` were given."""
    return tuple(zip((one.kind for one in ask.containers), containers, strict=True))


def charges(containers: Parts, init_done: bool = False) -> tuple[Charge, ...]:
    """A pod's charge on each card it uses, sorted by card id.

    A slot is one container on the card. With `init_done` only sidecars and app containers count. MIG instances are
    all made when kubelet admits the pod and stay as long as it does, so each counts, whatever its container.
    """
    made: dict[CardId, list[Slice]] = {}
    for _, slices in containers:
        for part in slices:
            if part.instance is not None:
                made.setdefault(part.card, []).append(part)
    running: dict[CardId, _Load] = {}
    peak: dict[CardId, _Load] = {}
    for kind, slices in containers:
        if made:
            slices = tuple(part for part in slices if part.instance is None)  # noqa: PLW2901
        phase = _merged(running, slices)
        if kind is not ContainerKind.INIT:
            running.update(phase)
        elif not init_done:
            _raise(peak, phase)
    _raise(peak, running)
    if made:
        return tuple(_instances(card, peak.get(card, _NOTHING), made.get(card, [])) for card in sorted({*peak, *made}))
    return tuple(Charge(card, *peak[card]) for card in sorted(peak))


def _instances(card: CardId, load: _Load, parts: Sequence[Slice]) -> Charge:
    return Charge(
        card,
        load[0] + len(parts),
        load[1] + sum(part.mem_mib for part in parts),
        load[2] + sum(part.core_percent for part in parts),
        tuple(sorted(part.instance for part in parts if part.instance is not None)),
    )


def _merged(running: dict[CardId, _Load], slices: ContainerSlices) -> dict[CardId, _Load]:
    """What the cards of `slices` bear when one more container runs beside `running`."""
    phase: dict[CardId, _Load] = {}
    for part in slices:
        slots, mem, cores = phase[part.card] if part.card in phase else _one_more(running.get(part.card, _NOTHING))
        phase[part.card] = (slots, mem + part.mem_mib, cores + part.core_percent)
    return phase


def _one_more(load: _Load) -> _Load:
    return load[0] + 1, load[1], load[2]


def _raise(peak: dict[CardId, _Load], phase: dict[CardId, _Load]) -> None:
    for card, load in phase.items():
        top = peak.get(card, _NOTHING)
        peak[card] = (max(top[0], load[0]), max(top[1], load[1]), max(top[2], load[2]))
