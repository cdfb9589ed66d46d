"""Refusals as the texts kube-scheduler gets: made once each, thousands sent a request.

A scan gives the many nodes that fail alike one Refusal object, and keeps it for the next
request; so a text belongs to an object. Knows no HTTP and no ledger.
"""

from collections.abc import Mapping

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


class Phrase(Struct, frozen=True):
    """What is said of a refusal. Holds it, so that its identity stays its own."""

    refusal: Refusal
    text: str
    brief: str
    lasting: bool


class Phrases:
    """Texts by the identity of their refusal."""

    def __init__(self) -> None:
        self._phrases: dict[int, Phrase] = {}

    def spoken(self, refusals: Mapping[str, Refusal]) -> tuple[Texts, Texts]:
        """Reasons by node: those that preemption might cure, and those it cannot."""
        phrases = self._phrases
        failed: dict[str, Phrase] = {}
        unresolvable: dict[str, Phrase] = {}
        for name, refusal in refusals.items():
            phrase = phrases.get(id(refusal)) or self._learn(refusal)
            (unresolvable if phrase.lasting else failed)[name] = phrase
        if len({phrase.text for phrase in failed.values()}) + len({one.text for one in unresolvable.values()}) > SPOKEN:
            return _brief(failed), _brief(unresolvable)
        return _full(failed), _full(unresolvable)

    def _learn(self, refusal: Refusal) -> Phrase:
        if len(self._phrases) >= KEPT:
            self._phrases.clear()
        lasting = all(reason in LASTING for reason, _ in refusal.counts)
        phrase = self._phrases[id(refusal)] = Phrase(refusal, refusal.text, brief(refusal), lasting)
        return phrase


def brief(refusal: Refusal) -> str:
    """The reasons without the quantities, of which there are few on any cluster."""
    parts = [
        f"{count}/{refusal.total} {reason.value}" if refusal.total else reason.value for reason, count in refusal.counts
    ]
    return ", ".join(sorted(parts))


def _full(phrases: Mapping[str, Phrase]) -> Texts:
    return {name: phrase.text for name, phrase in phrases.items()}


def _brief(phrases: Mapping[str, Phrase]) -> Texts:
    return {name: phrase.brief for name, phrase in phrases.items()}
