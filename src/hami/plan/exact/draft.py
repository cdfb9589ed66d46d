"""A plan in the making: one node's cards with what the containers of a pod have taken of them so far.

Says which cards a container may have as things stand, takes what it is told, and goes back to what was. Which cards to
try is the affair of `exact.search`.
"""

from collections.abc import Iterator, Sequence
from itertools import chain as concatenated

from hami.model.ask import Ask, CardAsk, ContainerKind
from hami.model.card import MIG, Card
from hami.model.errors import Bug
from hami.model.ids import Family
from hami.model.plan import ContainerSlices, Slice
from hami.plan.exact import mig, score
from hami.plan.exact.rules import room, standing
from hami.plan.exact.wants import Want, wants
from hami.plan.policies import Candidate, Chain, chain
from hami.plan.snapshot import CardState, NodeState, Use

Saved = tuple[tuple[Use, ...], dict[int, tuple[mig.Need, ...]]]
"""What is used of each card, and the instances pending."""


class Draft:
    """Cards are told by their position on the node, containers' asks by the number of their want."""

    def __init__(self, ask: Ask, node: NodeState) -> None:
        self.ask = ask
        self.wants = wants(ask)
        self.mig = node.mig
        self._node = node
        self._chain: Chain = chain(ask.card_policy)
        self.idle_only = self._chain.idle_only
        self._use: list[Use] = [state.use for state in node.cards]
        self._accepted = {want.ask: _accepting(want.ask, node) for want in self.wants}
        """Cards that an ask accepts for what they are."""
        self.taken: list[Sequence[int]] = [()] * len(self.wants)
        """By want."""
        self._pending: dict[int, tuple[mig.Need, ...]] = {}
        """Instances this pod takes of cards in MIG mode, in the order of its wants; all get their places at the end."""

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
        self.taken[number] = choice
        want = self.wants[number]
        for position in choice:
            card = self._node.cards[position].card
            if card.mode == MIG:  # also an init container's stays as long as the pod
                self._pending[position] = (*self._pending.get(position, ()), mig.need(want.ask, card))
            elif want.kind is ContainerKind.INIT:
                continue
            self._use[position] = _after(want.ask, card, self._use[position])

    def saved(self) -> Saved:
        """What there is to go back to."""
        return tuple(self._use), self._pending.copy()

    def go_back(self, saved: Saved) -> None:
        self._use[:] = saved[0]
        self._pending = saved[1].copy()

    def sets(self, numbers: Sequence[int]) -> list[list[int]]:
        """For each card the sets of these wants, a bit each, that it takes one after the other."""
        return [self._sets(position, numbers) for position in range(len(self._use))]

    def _sets(self, position: int, numbers: Sequence[int]) -> list[int]:
        card, uses = self._node.cards[position].card, {0: self._use[position]}
        for place, number in enumerate(numbers):
            ask = self.wants[number].ask
            if position not in self._accepted[ask]:
                continue
            for chosen, use in list(uses.items()):
                if room(ask, card, use, self.idle_only) is None:
                    uses[chosen | 1 << place] = _after(ask, card, use)
        return list(uses)[1:]

    def slices(self) -> tuple[ContainerSlices, ...]:
        """What was taken, one entry a container of the ask, cards by index."""
        found: list[list[Slice]] = [[] for _ in self.ask.containers]
        placed = {position: iter(self._placed(position)) for position in self._pending}
        for want, choice in zip(self.wants, self.taken, strict=True):
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

    def alike(self, choice: Sequence[int], before: Saved) -> tuple[object, ...]:
        """Of two choices for which this is the same, one need not be tried."""
        return tuple(sorted((self._like(position), before[0][position]) for position in choice))

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


def _accepting(ask: CardAsk, node: NodeState) -> list[int]:
    return [
        position
        for position, state in enumerate(node.cards)
        if state.card.family == ask.family and standing(ask.rules, state) is None
    ]
