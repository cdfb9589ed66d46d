"""Cards for every container of a pod on one node, looked for one container after the other.

No card is of two families, so each family is searched by itself. Containers are served in spec order. Each takes the
cards its policy prefers; where that leaves a later one without, other choices are tried, up to a bound; behind it are
two ways that try less, and that for a few containers misses nothing. Init containers run alone, so they are tested
beside the sidecars before them and then forgotten.
"""

from collections.abc import Sequence
from itertools import dropwhile

from hami.model.ask import ContainerKind
from hami.model.ids import Family
from hami.model.refusal import Refusal
from hami.plan.exact import quota
from hami.plan.exact.charge import parts_of
from hami.plan.exact.draft import Draft
from hami.plan.exact.sharing import MOST_WANTS, shared_out, simple
from hami.plan.policies import Candidate

CHOICES = 256
"""Placements tried for the containers of one pod on the cards of one family of one node before giving up: a bound, so
that no pod can make a decision slow. Mostly the first one or two succeed."""


class Search:
    """Fills a draft; where that fails, what is left of it is of no use."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._wants = draft.wants
        self._left = CHOICES
        self.dear: Refusal | None = None
        """Set where cards were found that cost more than the namespace's quota has left."""

    def run(self) -> bool:
        """Find cards for everything."""
        return all(map(self._found, self._families()))

    def _families(self) -> list[list[int]]:
        """The numbers of the wants of each family, in spec order."""
        numbers: dict[Family, list[int]] = {}
        for number, want in enumerate(self._wants):
            numbers.setdefault(want.ask.family, []).append(number)
        return list(numbers.values())

    def _found(self, numbers: Sequence[int]) -> bool:
        self._left = CHOICES
        found = self.place(numbers) or self._squeezed(numbers)
        if found:
            self.dear = None
        return found

    def place(self, numbers: Sequence[int]) -> bool:
        """Find cards for these wants of one family."""
        if not numbers:
            return self._affordable()
        number, *others = numbers
        draft, want = self._draft, self._wants[number]
        before = draft.saved()
        failed: Sequence[int] | None = None
        tried = set()
        for choice in draft.choices(want):
            if failed is not None:  # mostly the first choice does, and is compared with none
                tried.add(draft.alike(failed, before))
                if draft.alike(choice, before) in tried:
                    continue
            failed = choice
            self._left -= 1
            draft.take(number, choice)
            if self.place(others):
                return True
            draft.go_back(before)
            if self._left <= 0 or (want.kind is ContainerKind.INIT and not (draft.ask.budgets or draft.mig)):
                break  # an init container leaves nothing behind, so another choice changes nothing
        return False

    def _squeezed(self, numbers: Sequence[int]) -> bool:
        """Two more ways where `place` has ended at its bound."""
        if self._left > 0 or self._draft.mig or self._draft.ask.budgets:
            return False
        return self.fill(numbers) or self.share(numbers)

    def fill(self, numbers: Sequence[int]) -> bool:
        """The largest want first, each on the fullest card that takes it. For pods of many containers."""
        before = self._draft.saved()
        lasting = [number for number in numbers if self._wants[number].kind is not ContainerKind.INIT]
        filled = all(self._fill_one(number) for number in sorted(lasting, key=self._size, reverse=True))
        self._draft.go_back(before)
        found = filled and all(map(self._fill_again, numbers))
        if not found:
            self._draft.go_back(before)
        return found

    def _fill_again(self, number: int) -> bool:
        """The same in spec order, by which the rules are meant: an init container runs beside the sidecars before it,
        and who asks for no cores comes too late where others before him have taken all."""
        draft, want = self._draft, self._wants[number]
        if want.kind is ContainerKind.INIT:
            return self._fill_one(number)
        able = {one.position for one in draft.candidates(want)}.issuperset(draft.taken[number])
        draft.take(number, draft.taken[number])
        return able

    def _fill_one(self, number: int) -> bool:
        draft, want = self._draft, self._wants[number]
        choice: Sequence[int] | None
        if want.ask.cards == 1:
            able = draft.candidates(want)
            choice = [min(able, key=_left).position] if able else None
        else:
            choice = next(draft.choices(want), None)
        if choice is not None:
            draft.take(number, choice)
        return choice is not None

    def share(self, numbers: Sequence[int]) -> bool:
        """Every way to give a few wants a card each, beside those of init containers that run before all others."""
        lasting = list(dropwhile(lambda number: self._wants[number].kind is ContainerKind.INIT, numbers))
        if len(lasting) > MOST_WANTS or not all(simple(self._wants[number]) for number in lasting):
            return False
        if not all(map(self._fill_one, numbers[: len(numbers) - len(lasting)])):
            return False
        places = shared_out(self._draft.sets(lasting), len(lasting))
        if places is None:
            return False
        for number, position in zip(lasting, places, strict=True):
            self._draft.take(number, (position,))
        return True

    def _size(self, number: int) -> int:
        return self._wants[number].ask.mem_mib or 0

    def _affordable(self) -> bool:
        """Whether what was taken stays within the namespace's quota."""
        ask = self._draft.ask
        if not ask.budgets:
            return True
        breach = quota.breach(ask.budgets, quota.spent(parts_of(ask, self._draft.slices())))
        if breach is not None:
            self.dear = quota.refusal(breach)
        return breach is None


def _left(candidate: Candidate) -> int:
    """MiB free on a card before it takes the ask."""
    return candidate.card.mem_mib - candidate.use[1]
