"""Places for a pod's containers on the cards of one node, found one after the other.

No card is of two families, so each family is searched by itself. Containers are served in spec order. Each takes the
cards its policy prefers; where that leaves a later one without, other choices are tried, up to a bound; behind it are
two ways that try less, and that for a few containers misses nothing. Init containers run alone, so they are tested
beside the sidecars before them and then forgotten.
"""

from collections.abc import Iterator, Sequence
from itertools import chain as concatenated
from itertools import dropwhile

from hami.model.ask import Ask, CardAsk, ContainerKind
from hami.model.card import MIG, Card
from hami.model.errors import Bug
from hami.model.ids import Family
from hami.model.plan import ContainerSlices, Slice
from hami.model.refusal import Refusal
from hami.plan.exact import mig, quota, score
from hami.plan.exact.charge import parts_of
from hami.plan.exact.rules import room, standing
from hami.plan.exact.sharing import MOST_WANTS, shared_out, simple
from hami.plan.exact.wants import Want, wants
from hami.plan.policies import Candidate, Chain, chain
from hami.plan.snapshot import CardState, NodeState, Use

CHOICES = 256
"""Placements tried for the containers of one pod on the cards of one family of one node before giving up: a bound, so
that no pod can make a decision slow. Mostly the first one or two succeed."""


class Search:
    """A node's cards while a pod's containers are put on them, one after the other."""

    def __init__(self, ask: Ask, node: NodeState) -> None:
        self.ask = ask
        self.wants = wants(ask)
        self._node = node
        self._chain: Chain = chain(ask.card_policy)
        self.idle_only = self._chain.idle_only
        self._use: list[Use] = [state.use for state in node.cards]
        self._accepted = {want.ask: _accepting(want.ask, node) for want in self.wants}
        """Cards that an ask accepts for what they are, by position."""
        self._taken: list[Sequence[int]] = [()] * len(self.wants)
        self._left = CHOICES
        self._mig = any(state.card.mode == MIG for state in node.cards)
        self._pending: dict[int, tuple[mig.Need, ...]] = {}
        """Instances this pod takes of cards in MIG mode, in the order of its wants; all get their places at the end."""
        self.dear: Refusal | None = None
        """Set where cards were found that cost more than the namespace's quota has left."""

    def found(self) -> bool:
        """Find cards for everything."""
        return all(map(self._found, self._families()))

    def _families(self) -> list[list[int]]:
        """The numbers of the wants of each family, in spec order."""
        numbers: dict[Family, list[int]] = {}
        for number, want in enumerate(self.wants):
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
        want = self.wants[number]
        before, pending = self._use.copy(), self._pending.copy()
        failed: Sequence[int] | None = None
        tried = set()
        for choice in self.choices(want):
            if failed is not None:  # mostly the first choice does, and is compared with none
                tried.add(self._alike(failed, before))
                if self._alike(choice, before) in tried:
                    continue
            failed = choice
            self._left -= 1
            self.take(number, choice)
            if self.place(others):
                return True
            self._use[:], self._pending = before, pending.copy()
            if self._left <= 0 or (want.kind is ContainerKind.INIT and not (self.ask.budgets or self._mig)):
                break  # an init container leaves nothing behind, so another choice changes nothing
        return False

    def _squeezed(self, numbers: Sequence[int]) -> bool:
        """Two more ways where `place` has ended at its bound."""
        if self._left > 0 or self._mig or self.ask.budgets:
            return False
        return self.fill(numbers) or self.share(numbers)

    def fill(self, numbers: Sequence[int]) -> bool:
        """The largest want first, each on the fullest card that takes it. For pods of many containers."""
        before = self._use.copy()
        lasting = [number for number in numbers if self.wants[number].kind is not ContainerKind.INIT]
        filled = all(self._fill_one(number) for number in sorted(lasting, key=self._size, reverse=True))
        self._use[:] = before
        found = filled and all(map(self._fill_again, numbers))
        if not found:
            self._use[:] = before
        return found

    def _fill_again(self, number: int) -> bool:
        """The same in spec order, by which the rules are meant: an init container runs beside the sidecars before it,
        and who asks for no cores comes too late where others before him have taken all."""
        want = self.wants[number]
        if want.kind is ContainerKind.INIT:
            return self._fill_one(number)
        able = {one.position for one in self.candidates(want)}.issuperset(self._taken[number])
        self.take(number, self._taken[number])
        return able

    def _fill_one(self, number: int) -> bool:
        want = self.wants[number]
        choice: Sequence[int] | None
        if want.ask.cards == 1:
            able = self.candidates(want)
            choice = [min(able, key=_left).position] if able else None
        else:
            choice = next(self.choices(want), None)
        if choice is not None:
            self.take(number, choice)
        return choice is not None

    def share(self, numbers: Sequence[int]) -> bool:
        """Every way to give a few wants a card each, beside those of init containers that run before all others."""
        lasting = list(dropwhile(lambda number: self.wants[number].kind is ContainerKind.INIT, numbers))
        if len(lasting) > MOST_WANTS or not all(simple(self.wants[number]) for number in lasting):
            return False
        if not all(map(self._fill_one, numbers[: len(numbers) - len(lasting)])):
            return False
        places = shared_out([self._sets(position, lasting) for position in range(len(self._use))], len(lasting))
        if places is None:
            return False
        for number, position in zip(lasting, places, strict=True):
            self.take(number, (position,))
        return True

    def _sets(self, position: int, numbers: Sequence[int]) -> list[int]:
        """The sets of these wants, a bit each, that a card takes one after the other."""
        card, uses = self._node.cards[position].card, {0: self._use[position]}
        for place, number in enumerate(numbers):
            ask = self.wants[number].ask
            if position not in self._accepted[ask]:
                continue
            for chosen, use in list(uses.items()):
                if room(ask, card, use, self.idle_only) is None:
                    uses[chosen | 1 << place] = _after(ask, card, use)
        return list(uses)[1:]

    def _size(self, number: int) -> int:
        return self.wants[number].ask.mem_mib or 0

    def _affordable(self) -> bool:
        """Whether what was taken stays within the namespace's quota."""
        if not self.ask.budgets:
            return True
        breach = quota.breach(self.ask.budgets, quota.spent(parts_of(self.ask, self.slices())))
        if breach is not None:
            self.dear = quota.refusal(breach)
        return breach is None

    def choices(self, want: Want) -> Iterator[Sequence[int]]:
        """Sets of cards (positions) that serve `want`, the preferred first."""
        candidates, cards, links = self.candidates(want), want.ask.cards, self._node.links
        if not want.ask.rules.numa_bind:
            return self._chain.choices(candidates, cards, links)
        first = (choice[0] for choice in self._chain.choices(candidates, 1, {}))
        numas = dict.fromkeys(self._node.cards[position].card.numa for position in first)
        groups = ([one for one in candidates if one.card.numa == numa] for numa in numas)
        return concatenated.from_iterable(self._chain.choices(group, cards, links) for group in groups)

    def candidates(self, want: Want) -> list[Candidate]:
        """Cards that accept `want` beside what they bear."""
        ask, weights = want.ask, self.ask.weights
        found: list[Candidate] = []
        for position in self._accepted[ask]:
            card, use = self._node.cards[position].card, self._use[position]
            if card.mode == MIG:
                found.extend(self._instances(position, ask))
            elif room(ask, card, use, self.idle_only) is None:
                found.append(Candidate(position, card, use, score.card(card, use, ask, weights)))
        return found

    def _instances(self, position: int, ask: CardAsk) -> Iterator[Candidate]:
        """A card in MIG mode, once for each instance it has room for: one card may serve several units."""
        card, use, held = self._node.cards[position].card, self._use[position], self._node.cards[position].instances
        if self.idle_only and use[0] > 0:
            return
        before = mig.mask(self._held(position))
        pending = self._pending.get(position, ())
        for packed in mig.units(card, held, pending, mig.need(ask, card), ask.cards):
            loss = mig.loss(card.mig_profiles, before, mig.mask((*held, *packed)))
            yield Candidate(position, card, use, score.card(card, use, ask, self.ask.weights), loss)

    def _held(self, position: int) -> mig.Instances:
        """Instances on a card: others' and this pod's so far."""
        state, pending = self._node.cards[position], self._pending.get(position, ())
        return (*state.instances, *(mig.pack(state.card.mig_profiles, state.instances, pending) or ()))

    def take(self, number: int, choice: Sequence[int]) -> None:
        """Give `choice` to want `number`."""
        self._taken[number] = choice
        want = self.wants[number]
        for position in choice:
            card = self._node.cards[position].card
            if card.mode == MIG:  # also an init container's stays as long as the pod
                self._pending[position] = (*self._pending.get(position, ()), mig.need(want.ask, card))
            elif want.kind is ContainerKind.INIT:
                continue
            self._use[position] = _after(want.ask, card, self._use[position])

    def slices(self) -> tuple[ContainerSlices, ...]:
        """What was taken, one entry a container of the ask, cards by index."""
        found: list[list[Slice]] = [[] for _ in self.ask.containers]
        placed = {position: iter(self._placed(position)) for position in self._pending}
        for want, choice in zip(self.wants, self._taken, strict=True):
            for position in sorted(choice, key=lambda one: self._node.cards[one].card.index):
                card = self._node.cards[position].card
                mem, core, instance = want.ask.mem_on(card.mem_mib), want.ask.core_percent, None
                if position in placed:
                    instance = next(placed[position])
                    profile = mig.profile_of(card, instance)
                    mem, core = profile.mem_mib, profile.core_percent
                found[want.container].append(Slice(card.id, card.family, mem, core, instance))
        return tuple(tuple(slices) for slices in found)

    def states(self, family: Family) -> list[CardState]:
        """The cards of a family as they stand now."""
        return [
            CardState(state.card, *self._use[at], cordoned=state.cordoned, instances=tuple(sorted(self._held(at))))
            for at, state in enumerate(self._node.cards)
            if state.card.family == family
        ]

    def _placed(self, position: int) -> mig.Instances:
        """This pod's instances on a card, in the order of its wants."""
        state = self._node.cards[position]
        packed = mig.pack(state.card.mig_profiles, state.instances, self._pending[position])
        if packed is None:
            raise Bug(f"instances taken on card {state.card.id} have no places")
        return packed

    def _alike(self, choice: Sequence[int], before: Sequence[Use]) -> tuple[object, ...]:
        """Of two choices for which this is the same, one need not be tried."""
        return tuple(sorted((self._like(position), before[position]) for position in choice))

    def _like(self, position: int) -> tuple[int, ...]:
        """Cards of which this is equal are interchangeable for this pod, given equal use."""
        card = self._node.cards[position].card
        accepts = (position in accepted for accepted in self._accepted.values())
        own = position if card.mode == MIG else -1  # what is free of it has a place, which differs
        return (card.mem_mib, card.core_percent, card.slots, card.numa, own, *accepts)


def _after(ask: CardAsk, card: Card, use: Use) -> Use:
    """What a card bears with `ask` on it."""
    slots, mem, cores = use
    return slots + 1, mem + ask.mem_on(card.mem_mib), cores + ask.core_percent


def _left(candidate: Candidate) -> int:
    """MiB free on a card before it takes the ask."""
    return candidate.card.mem_mib - candidate.use[1]


def _accepting(ask: CardAsk, node: NodeState) -> list[int]:
    return [
        position
        for position, state in enumerate(node.cards)
        if state.card.family == ask.family and standing(ask.rules, state) is None
    ]
