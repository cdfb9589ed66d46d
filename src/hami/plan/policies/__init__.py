"""Card policies: which of the cards that fit is preferred. One file each, one signature.

A policy is a `CardPolicy`; adding one is a file and a line in `CARD_POLICIES`. A pod names
a chain of them (``mutex,binpack,numa``): each restricts or orders, the first that
tells two cards apart decides, and the card's index breaks what ties are left.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

from msgspec import Struct

from hami.plan.policies import binpack, mutex, numa, spread, topology
from hami.plan.policies.candidate import Candidate, CardPolicy, Sets
from hami.plan.snapshot import Links

__all__ = ["CARD_POLICIES", "Candidate", "CardPolicy", "Chain", "chain"]

CARD_POLICIES: dict[str, CardPolicy] = {
    policy.name: policy for policy in (binpack.POLICY, spread.POLICY, numa.POLICY, mutex.POLICY, topology.POLICY)
}


class Chain(Struct, frozen=True):
    """Several policies as one."""

    keys: tuple[Callable[[Candidate], float], ...]
    idle_only: bool
    sets: Sets | None

    def choices(self, candidates: list[Candidate], cards: int, links: Links) -> Iterator[Sequence[int]]:
        """Sets of so many candidates, by position, the preferred first; equal ones by index,
        so that the same input gives the same plan."""
        ordered = self._order(candidates)
        sets = combinations(ordered, cards) if self.sets is None else self.sets(ordered, cards, links)
        return ([one.position for one in chosen] for chosen in sets)

    @property
    def plain(self) -> bool:
        """Whether nothing but how full cards are decides: then the node policy `pack` may know better."""
        return self.sets is None and not self.idle_only and set(self.keys) <= {binpack.key, spread.key}

    def _order(self, candidates: list[Candidate]) -> list[Candidate]:
        if len(self.keys) == 1:
            key = self.keys[0]
            return sorted(candidates, key=lambda one: (one.loss, key(one), one.card.index, one.position))
        return sorted(
            candidates, key=lambda one: (one.loss, *[key(one) for key in self.keys], one.card.index, one.position)
        )


@lru_cache(maxsize=256)
def chain(words: tuple[str, ...]) -> Chain:
    """The chain a pod names. A word that is no policy has no say; without any order, spread."""
    policies = [CARD_POLICIES[word] for word in dict.fromkeys(words) if word in CARD_POLICIES]
    keys = tuple(policy.key for policy in policies if policy.key is not None)
    idle_only = any(policy.idle_only for policy in policies)
    sets = next((policy.sets for policy in policies if policy.sets is not None), None)
    return Chain(keys or (spread.key,), idle_only, sets)
