"""Why cards refuse, in bytes, and how often a node's cards do, in one word a node.

A byte a card: the number of the reason that comes first, as a place in `REASONS` counted from 1, and 0 for a card
that is not there. What the rules ask only after memory stands as a number of its own from `LEFT` on, so that memory
can be asked last: it differs from ask to ask.
"""

from collections.abc import Mapping

import numpy as np

from hami.model.refusal import Reason
from hami.plan.fleet.columns import MAX_CARDS, Bytes, Longs

REASONS = (
    Reason.NOT_HEALTHY,
    Reason.CORDONED,
    Reason.TYPE_MISMATCH,
    Reason.UUID_MISMATCH,
    Reason.SLOTS_EXHAUSTED,
    Reason.EXCLUSIVE_CONFLICT,
    Reason.INSUFFICIENT_MEMORY,
    Reason.INSUFFICIENT_CORE,
    Reason.CORES_EXHAUSTED,
)
"""Reasons that are counted; a tally holds `TALLY_BITS` bits for each, in this order."""
TALLY_BITS = MAX_CARDS.bit_length()

FIRST = {reason: number for number, reason in enumerate(REASONS, 1)}
LACKS_MEMORY = FIRST[Reason.INSUFFICIENT_MEMORY]
LEFT = len(REASONS) + 1
"""Nothing but memory can refuse the card."""
AFTER_MEMORY = {
    reason: number
    for number, reason in enumerate(
        (Reason.EXCLUSIVE_CONFLICT, Reason.INSUFFICIENT_CORE, Reason.CORES_EXHAUSTED), LEFT + 1
    )
}
"""The card is refused for this unless it lacks memory."""


def tallies(first: Bytes) -> Longs:
    """Of bytes `[card][node]`: the tally of each node. Two cards are looked up at once."""
    even = len(first) & ~1
    pairs = first[:even:2] << np.uint8(4)
    pairs |= first[1:even:2]
    found: Longs = np.add.reduce(_OF_TWO.take(pairs), axis=0)
    if even < len(first):
        found += _OF_TWO.take(first[even])
    return found


def counts(tally: int) -> Mapping[Reason, int]:
    """A tally spelled out."""
    return {
        reason: count for place, reason in enumerate(REASONS) if (count := tally >> (TALLY_BITS * place) & MAX_CARDS)
    }


def _of_one(number: int) -> int:
    names = {number: reason for table in (FIRST, AFTER_MEMORY) for reason, number in table.items()}
    return 1 << TALLY_BITS * REASONS.index(names[number]) if number in names else 0


_OF_TWO: Longs = np.array([_of_one(one) + _of_one(two) for one in range(16) for two in range(16)], np.int64)
