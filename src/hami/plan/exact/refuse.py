"""Refusals in words: one place for their text, whoever counted (exact look or scan over columns)."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from hami.model.ids import Family
from hami.model.refusal import CardRefusal, Reason, Refusal

UNKNOWN_NODE = Refusal(((Reason.UNREGISTERED, 1),), 0)
"""Nobody has registered cards on this node."""

NOT_TOGETHER = Refusal(
    ((Reason.CARDS_PARTLY_FIT, 1),), 0, "each container fits by itself, but not all that run at the same time"
)

_ORDER = {reason: place for place, reason in enumerate(Reason)}


def unusable(problem: str) -> Refusal:
    """A node that is known and not to be used; `problem` says why."""
    return Refusal(((Reason.UNREGISTERED, 1),), 0, problem)


def no_family(family: Family) -> Refusal:
    return Refusal(((Reason.NO_SUCH_FAMILY, 1),), 0, f"the node has no {family} card")


def too_few(asked: int, total: int) -> Refusal:
    """The node has fewer cards than one container asks, whatever is used on them."""
    return Refusal(((Reason.INSUFFICIENT_CARDS, 1),), 0, f"asks {asked} cards, the node has {total}")


class Form(Struct, frozen=True):
    """A refusal but for the memory that lacks, which differs from node to node."""

    counts: tuple[tuple[Reason, int], ...]
    total: int
    detail: str
    lacking: str
    """Which card `missing_mib` is told of; empty where it does not matter."""

    def say(self, missing_mib: int | None, cards: Sequence[CardRefusal] = ()) -> Refusal:
        """`missing_mib` is the least that a card refused for its memory lacks, None where none was."""
        detail = self.detail
        if missing_mib is not None and self.lacking:
            missing = f"missing {missing_mib} MiB on the {self.lacking} card"
            detail = f"{detail}; {missing}" if detail else missing
        return Refusal(self.counts, self.total, detail, tuple(cards))


def form(refusal: Refusal) -> Form:
    """A refusal that says the same of every node."""
    return Form(refusal.counts, refusal.total, refusal.detail, "")


def by_cards(counts: Mapping[Reason, int], *, total: int, asked: int, accepted: int, together: int) -> Form:
    """Too few of the node's cards accept the ask.

    `accepted` cards do, at most `together` of them may serve one container: fewer only
    where they must share a NUMA node.
    """
    full = dict(counts)
    if together:
        full[Reason.CARDS_PARTLY_FIT] = together
    if accepted > together:
        full[Reason.NUMA_NOT_FIT] = accepted - together
    entries = tuple(sorted(full.items(), key=lambda entry: _ORDER[entry[0]]))
    detail = ""
    if accepted > together:
        detail = f"asks {asked} cards on one NUMA node, at most {together} there fit"
    elif accepted:
        detail = f"asks {asked} cards, {accepted} of {total} fit"
    return Form(entries, total, detail, "next" if accepted else "best")
