"""What pods ask, learned from those that came by: shapes and how often each was seen, and whether pods leave again.

Nobody says in advance what will be asked. Every pod counts once, however often it is tried; old ones
are forgotten by halves, so that the mix follows a cluster whose work changes.
"""

from collections.abc import Sequence

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, CardRules
from hami.model.ids import Family, PodUid
from hami.model.plan import ContainerSlices
from hami.plan.exact.wants import wants
from hami.plan.pack.lives import Lives, by_family

MEMORY = 32_768
"""Asks after which all counts are halved."""
MOST_KEPT = 8192
"""Shapes that are counted; of more the rarest half is forgotten, of equal ones the oldest. To compare two mixes of so
many takes some 10 ms."""
COVERED = 0.95
"""Shapes are looked at from the most frequent on until they make up this much: rare ones are noise."""
MOST_SHAPES = 32
"""The time of a decision grows with them."""
MOST_WIDE = 12
"""Asks for several cards are rare each, and together decide whether wide nodes are kept: they count by themselves."""
LIVELY = 0.1
"""Once so many of the pods seen have left again, a cluster is taken for one whose room comes back."""


class Shape(Struct, frozen=True):
    """What one container asks of one family, and its part of the pod's CPU request."""

    ask: CardAsk
    cpu_milli: int = 0


class Weighed(Struct, frozen=True):
    shape: Shape
    weight: float
    """Of all weighed shapes of its family together, 1."""


class Demand:
    """Counts by shape. `seen` never goes back: it tells when to look again."""

    def __init__(self) -> None:
        self.seen = 0
        self.lives = Lives()
        self._left = 0
        self._counts: dict[Shape, float] = {}
        self._pods: dict[PodUid, None] = {}

    def see(self, ask: Ask) -> None:
        """A pod asks. The second time it does, nothing is learned."""
        if self._new(ask.pod.uid):
            found = wants(ask)
            cpu = ask.cpu_milli // max(len(found), 1)
            for want in found:
                self.lives.ask(want.ask.family, want.ask.cards)
                self._count(Shape(_without_ids(want.ask), cpu))

    def see_running(self, uid: PodUid, containers: Sequence[ContainerSlices]) -> None:
        """A pod is bound. If it was never asked about here, that tells of demand as well: after a restart the running
        ones are the best guess."""
        if self._new(uid):
            for slices in (own for container in containers for own in by_family(container)):
                first = slices[0]
                self.lives.bound(first.family, len(slices))
                self._count(Shape(CardAsk(first.family, len(slices), first.core_percent, mem_mib=first.mem_mib)))
        self.lives.begin(uid, containers)

    def leave(self, uid: PodUid) -> None:
        """A pod that ran has left."""
        self._left += 1
        self.lives.end(uid)

    @property
    def turnover(self) -> float:
        """0 where nobody leaves, 1 where pods come and go."""
        return min(self._left / max(self.seen * LIVELY, 1), 1.0)

    @property
    def commonest(self) -> Family | None:
        """The family asked for most often."""
        counts: dict[Family, float] = {}
        for shape, count in self._counts.items():
            counts[shape.ask.family] = counts.get(shape.ask.family, 0.0) + count
        return max(counts, key=lambda family: (counts[family], family), default=None)

    def frequent(self, family: Family) -> list[Weighed]:
        """The shapes that matter, the most frequent of one card and the most frequent of several."""
        ours = [(shape, count) for shape, count in self._counts.items() if shape.ask.family == family]
        ours.sort(key=lambda entry: -entry[1])
        found = _covering([entry for entry in ours if entry[0].ask.cards == 1], sum(count for _, count in ours))
        found += [entry for entry in ours if entry[0].ask.cards > 1][:MOST_WIDE]
        total = sum(count for _, count in found)
        return [Weighed(shape, count / total) for shape, count in found]

    def wide(self, family: Family, cards: int) -> list[tuple[Shape, float]]:
        """The shapes of so many cards and their counts, the most frequent first."""
        ours = [
            (one, count) for one, count in self._counts.items() if (one.ask.family, one.ask.cards) == (family, cards)
        ]
        return sorted(ours, key=lambda entry: -entry[1])

    def mix(self, family: Family) -> dict[Shape, float]:
        """Every shape's part of what is asked of a family."""
        ours = {shape: count for shape, count in self._counts.items() if shape.ask.family == family}
        total = sum(ours.values())
        return {shape: count / total for shape, count in ours.items()}

    def every(self, family: Family) -> list[tuple[CardAsk, float]]:
        """All asks of a family and their counts."""
        return [(shape.ask, count) for shape, count in self._counts.items() if shape.ask.family == family]

    def _new(self, uid: PodUid) -> bool:
        if uid in self._pods:
            return False
        self._pods[uid] = None
        if len(self._pods) > MEMORY:
            self._pods.pop(next(iter(self._pods)))
        return True

    def _count(self, shape: Shape) -> None:
        self.seen += 1
        self._counts[shape] = self._counts.get(shape, 0.0) + 1
        if len(self._counts) > MOST_KEPT:
            latest_first = [*self._counts.items()][::-1]
            self._counts = dict(sorted(latest_first, key=lambda entry: -entry[1])[: MOST_KEPT // 2])
        if self.seen % MEMORY == 0:
            self._counts = {shape: count / 2 for shape, count in self._counts.items() if count >= 1}
            self.lives.halve()


def _covering(sorted_: Sequence[tuple[Shape, float]], total: float) -> list[tuple[Shape, float]]:
    """The first of them that make up most of `total`."""
    covered, found = 0.0, []
    for shape, count in sorted_[:MOST_SHAPES]:
        if covered >= COVERED * total:
            break
        covered += count
        found.append((shape, count))
    return found


def _without_ids(ask: CardAsk) -> CardAsk:
    """Which very cards a pod wants says nothing about the next one; which types does."""
    rules = CardRules(use_types=ask.rules.use_types, nouse_types=ask.rules.nouse_types, modes=ask.rules.modes)
    return CardAsk(ask.family, ask.cards, ask.core_percent, ask.mem_mib, ask.mem_percent, rules)
