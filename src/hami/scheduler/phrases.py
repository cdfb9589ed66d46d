"""Refusals as the texts kube-scheduler gets: made once each, thousands sent a request.

A scan gives the many nodes that fail alike one Refusal object, and keeps it for the next
request; so a text belongs to an object. Knows no HTTP and no ledger.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import cast

from msgspec import Struct

from hami.model.refusal import Reason, Refusal

LASTING = frozenset(
    {
        Reason.NOT_HEALTHY,
        Reason.CORDONED,
        Reason.TYPE_MISMATCH,
        Reason.UUID_MISMATCH,
        Reason.INSUFFICIENT_CARDS,
        Reason.NO_SUCH_FAMILY,
        Reason.UNREGISTERED,
    }
)
"""Reasons that no preemption can cure: kube-scheduler is spared its dry run on those nodes."""

SPOKEN = 20
"""Up to this many different texts go out in full. kube-scheduler joins all of them into the pod's
condition, so on a large cluster the quantities would drown the reasons."""

KEPT = 50_000

Texts = dict[str, str]
"""Reason by node."""


class Phrase(Struct, eq=False):
    """What is said of a refusal. Holds it, so that its identity stays its own; compared by identity itself."""

    refusal: Refusal
    text: str
    brief: str
    reason: str
    """The reason that most cards share."""
    lasting: bool


class Phrases:
    """Texts by the identity of their refusal."""

    def __init__(self) -> None:
        self._phrases: dict[int, Phrase] = {}

    def spoken(self, refusals: Mapping[str, Refusal]) -> tuple[Texts, Texts]:
        """Reasons by node: those that preemption might cure, and those it cannot."""
        found = self._found(refusals)
        kinds = set(found)
        text = _text if len({kind.text for kind in kinds}) <= SPOKEN else _brief
        lasting = {kind for kind in kinds if kind.lasting}
        if not lasting:
            return dict(zip(refusals, map(text, found), strict=True)), {}
        said = list(zip(refusals, found, strict=True))
        failed = {name: text(phrase) for name, phrase in said if phrase not in lasting}
        return failed, {name: text(phrase) for name, phrase in said if phrase in lasting}

    def reasons(self, refusals: Mapping[str, Refusal]) -> Texts:
        """The main reason by node, one word each."""
        return dict(zip(refusals, map(_reason, self._found(refusals)), strict=True))

    def _found(self, refusals: Mapping[str, Refusal]) -> list[Phrase]:
        """One phrase a node, in order. Nothing here is Python code a node: there are thousands."""
        found = list(map(self._phrases.get, map(id, refusals.values())))
        if None in found:
            return [phrase or self._learn(refusal) for phrase, refusal in zip(found, refusals.values(), strict=True)]
        return cast("list[Phrase]", found)

    def _learn(self, refusal: Refusal) -> Phrase:
        known = self._phrases.get(id(refusal))
        if known is not None:
            return known
        if len(self._phrases) >= KEPT:
            self._phrases.clear()
        lasting = all(reason in LASTING for reason, _ in refusal.counts)
        phrase = Phrase(refusal, refusal.text, brief(refusal), refusal.reason.value, lasting)
        self._phrases[id(refusal)] = phrase
        return phrase


_text = attrgetter("text")
_brief = attrgetter("brief")
_reason = attrgetter("reason")


def brief(refusal: Refusal) -> str:
    """The reasons without the quantities, of which there are few on any cluster."""
    parts = [
        f"{count}/{refusal.total} {reason.value}" if refusal.total else reason.value for reason, count in refusal.counts
    ]
    return ", ".join(sorted(parts))
