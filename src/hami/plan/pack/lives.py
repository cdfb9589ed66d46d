"""How many pods of several cards run at once in the long run, learned from those that came and left.

By Little's law that is how often such a pod comes, times how long it runs. Both are counted in asks: the clock here
ticks once for every container that asks. Pods that wait in vain count among those that come, so the number is what
would run if nobody had to wait.
"""

from collections.abc import Iterable, Sequence

from hami.model.ids import Family, PodUid
from hami.model.plan import ContainerSlices, Slice

Width = tuple[Family, int]
"""A family, and how many of its cards a container asks for."""
MOST_WIDTHS = 64
"""Anybody may ask for a number of cards that no node has, and each known width is looked at with every ask. Those that
run are never forgotten: they are as few as the cards of a node."""


class Lived:
    """What is known of one width."""

    __slots__ = ("asked", "left", "lived", "running")

    def __init__(self) -> None:
        self.asked = 0.0
        self.running = 0
        self.lived = 0.0
        """Asks that came by while they ran, summed over all of them."""
        self.left = 0.0

    @property
    def settled(self) -> bool:
        """Whether enough have left to say how long they live."""
        return self.left >= max(self.running, 1)


class Lives:
    """Of one cluster."""

    def __init__(self) -> None:
        self._begun = False
        """Whether anything has asked or left: what is told before ran before, and for how long nobody knows."""
        self._asks = 0.0
        self._widths: dict[Width, Lived] = {}
        self._running: dict[PodUid, tuple[Width, ...]] = {}

    def ask(self, family: Family, cards: int) -> None:
        """A container asks, for the first time."""
        self._begun = True
        self._asks += 1
        for known in self._widths.values():
            known.lived += known.running
        if cards > 1:
            self._known((family, cards)).asked += 1

    def bound(self, family: Family, cards: int) -> None:
        """A container is bound that has never asked here: it counts as if it had, unless it ran before all others."""
        if self._begun:
            self.ask(family, cards)

    def begin(self, uid: PodUid, containers: Sequence[ContainerSlices]) -> None:
        """A pod is bound. Told again, nothing changes."""
        own = (slices for container in containers for slices in by_family(container))
        widths = tuple((slices[0].family, len(slices)) for slices in own if len(slices) > 1)
        if widths and uid not in self._running:
            self._running[uid] = widths
            for width in widths:
                self._known(width).running += 1

    def end(self, uid: PodUid) -> None:
        """A pod has left."""
        self._begun = True
        for width in self._running.pop(uid, ()):
            known = self._known(width)
            known.running -= 1
            known.left += 1

    def halve(self) -> None:
        """Forget half of what was seen, so that it follows a cluster whose work changes."""
        self._asks /= 2
        for known in self._widths.values():
            known.asked, known.lived, known.left = known.asked / 2, known.lived / 2, known.left / 2

    def at_once(self, family: Family) -> dict[int, float]:
        """How many containers run at once that ask for so many cards each, in the long run. As long as fewer have left
        than run, those that run are the best guess."""
        return {
            cards: known.asked / self._asks * known.lived / known.left
            if known.settled and self._asks
            else float(known.running)
            for (of, cards), known in self._widths.items()
            if of == family
        }

    def _known(self, width: Width) -> Lived:
        known = self._widths.get(width)
        if known is None:
            if len(self._widths) >= MOST_WIDTHS:
                self._forget_one()
            known = self._widths[width] = Lived()
        return known

    def _forget_one(self) -> None:
        """Of those that do not run, the one that was asked for least."""
        idle = [width for width, known in self._widths.items() if not known.running]
        if idle:
            del self._widths[min(idle, key=lambda width: self._widths[width].asked)]


def by_family(container: ContainerSlices) -> Iterable[list[Slice]]:
    """A container's slices of each family it has cards of: each was an ask by itself."""
    found: dict[Family, list[Slice]] = {}
    for one in container:
        found.setdefault(one.family, []).append(one)
    return found.values()
