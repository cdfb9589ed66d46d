"""Cards that are linked best, and for a single card the one that is linked worst.

Several cards of one container talk to each other, so the set with the highest sum of
pair scores is best; a single card should leave the well-linked ones to those who need
them. Every set is looked at: 12,870 at most for 16 cards, in one matrix product. Beyond that
many, the set grows card by card from the best pair, which is bounded and no longer sure to be optimal.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from hami.plan.policies.candidate import Candidate, CardPolicy
from hami.plan.snapshot import Links

MOST_SETS = 20_000

Scores = NDArray[np.int64]


def sets(candidates: Sequence[Candidate], cards: int, links: Links) -> Iterator[Sequence[Candidate]]:
    """Sets of `cards` candidates, the best linked first; equal ones in the candidates' order."""
    if len(candidates) <= cards or not links:
        return iter(combinations(candidates, cards))
    scores = _pair_scores(candidates, links)
    if cards == 1:
        sums = scores.sum(axis=1).tolist()
        return ((candidates[place],) for place in sorted(range(len(sums)), key=sums.__getitem__))
    if comb(len(candidates), cards) > MOST_SETS:
        grown = [candidates[place] for place in _grown(scores, cards)]
        return chain((grown,), combinations(candidates, cards))
    members, every = _members(len(candidates), cards)
    worth = np.einsum("sc,sc->s", members @ scores, members)
    order = np.argsort(-worth, kind="stable").tolist()
    return ([candidates[place] for place in every[number]] for number in order)


def _pair_scores(candidates: Sequence[Candidate], links: Links) -> Scores:
    """Symmetric, 0 on the diagonal."""
    scores = np.zeros((len(candidates), len(candidates)), np.int64)
    for one, two in combinations(range(len(candidates)), 2):
        first, second = candidates[one].card.id, candidates[two].card.id
        scores[one, two] = scores[two, one] = links.get(first, {}).get(second, 0)
    return scores


@lru_cache(maxsize=64)
def _members(candidates: int, cards: int) -> tuple[Scores, list[tuple[int, ...]]]:
    """Every set as a row of zeros and ones, and as places."""
    every = list(combinations(range(candidates), cards))
    members = np.zeros((len(every), candidates), np.bool_)
    members[np.arange(len(every))[:, None], np.array(every)] = True
    return members.astype(np.int64), every


def _grown(scores: Scores, cards: int) -> list[int]:
    """From the best pair, always the card that adds most."""
    masked = scores.copy()
    np.fill_diagonal(masked, np.iinfo(np.int64).min)
    chosen = [int(place) for place in np.unravel_index(masked.argmax(), masked.shape)]
    while len(chosen) < cards:
        gain = scores[chosen].sum(axis=0)
        gain[chosen] = np.iinfo(np.int64).min
        chosen.append(int(gain.argmax()))
    return sorted(chosen)


POLICY = CardPolicy("topology-aware", sets=sets)
