"""Refusals as the texts kube-scheduler gets: made once each, thousands sent a request.

Nodes that fail alike share a number (`plan.fleet.refusals`), so a text belongs to a number, and
nothing here is Python code a node. Knows no HTTP and no ledger.
"""

from collections.abc import Iterable, Sequence
from itertools import compress, tee
from operator import not_

from msgspec import Struct

from hami.model.refusal import Reason, Refusal
from hami.plan.exact.refuse import Form
from hami.plan.fleet.refusals import NOTHING, Refusals

LASTING = frozenset(
    {
        Reason.NOT_HEALTHY,
        Reason.CORDONED,
        Reason.TYPE_MISMATCH,
        Reason.UUID_MISMATCH,
        Reason.INSUFFICIENT_CARDS,
        Reason.NO_SUCH_FAMILY,
        Reason.UNREGISTERED,
        Reason.QUOTA_NOT_FIT,
        Reason.GANG_INCOMPLETE,
    }
)
"""Reasons that no preemption can cure: kube-scheduler is spared its dry run on those nodes."""

SPOKEN = 20
"""Up to this many different texts go out in full. kube-scheduler joins all of them into the pod's
condition, so on a large cluster the quantities would drown the reasons."""

KEPT = 50_000
"""Phrases."""
TEXTS = 1000
"""Of one phrase, by what lacks: of that there is another amount with nearly every ask."""

Texts = dict[str, str]
"""Reason by node."""


class Phrase(Struct):
    """What is said of a form, whatever memory lacks. Holds it, so that its identity stays its own."""

    form: Form
    brief: str
    reason: str
    """The reason that most cards share."""
    lasting: bool
    texts: dict[int, str] = {}
    """In full, by the MiB missing."""

    def text(self, missing: int) -> str:
        found = self.texts.get(missing)
        if found is None:
            if len(self.texts) >= TEXTS:
                self.texts.clear()
            found = self.texts[missing] = self.form.say(None if missing == NOTHING else missing).text
        return found


class Phrases:
    """Phrases by the identity of their form."""

    def __init__(self) -> None:
        self._phrases: dict[int, Phrase] = {}

    def spoken(self, refusals: Refusals) -> tuple[Texts, Texts]:
        """Reasons by node: those that preemption might cure, and those it cannot."""
        if not refusals.names:
            return {}, {}
        phrases = self._found(refusals)
        texts = _texts(refusals, phrases)
        lasting = {number: phrase.lasting for number, phrase in phrases.items()}
        if not any(lasting.values()):
            return dict(zip(refusals.names, texts, strict=True)), {}
        if all(lasting.values()):
            return {}, dict(zip(refusals.names, texts, strict=True))
        stays = refusals.by_number(lasting)
        return _chosen(refusals.names, texts, map(not_, stays)), _chosen(refusals.names, texts, stays)

    def reasons(self, refusals: Refusals) -> Texts:
        """The main reason by node, one word each."""
        words = {number: phrase.reason for number, phrase in self._found(refusals).items()}
        return dict(zip(refusals.names, refusals.by_number(words), strict=True))

    def tally(self, refusals: Refusals) -> dict[str, int]:
        """How many nodes have each main reason."""
        counts: dict[str, int] = {}
        for number, nodes in refusals.tally().items():
            reason = self._phrase(refusals.forms[number]).reason
            counts[reason] = counts.get(reason, 0) + nodes
        return counts

    def _found(self, refusals: Refusals) -> dict[int, Phrase]:
        """The phrases of a decision, by number."""
        return {number: self._phrase(refusals.forms[number]) for number in refusals.tally()}

    def _phrase(self, form: Form) -> Phrase:
        found = self._phrases.get(id(form))
        if found is None:
            if len(self._phrases) >= KEPT:
                self._phrases.clear()
            lasting = all(reason in LASTING for reason, _ in form.counts)
            refusal = form.say(None)
            found = self._phrases[id(form)] = Phrase(form, brief(refusal), refusal.reason.value, lasting)
        return found


def _texts(refusals: Refusals, phrases: dict[int, Phrase]) -> list[str]:
    """One text a node, in order: in full while they are few, else without the quantities."""
    pairs = refusals.pairs(SPOKEN)
    if pairs is not None:
        return refusals.by_pair({(number, missing): phrases[number].text(missing) for number, missing in pairs})
    return refusals.by_number({number: phrase.brief for number, phrase in phrases.items()})


def _chosen(names: Sequence[str], texts: Sequence[str], marks: Iterable[bool]) -> Texts:
    one, other = tee(marks)
    return dict(zip(compress(names, one), compress(texts, other), strict=True))


def brief(refusal: Refusal) -> str:
    """The reasons without the quantities, of which there are few on any cluster."""
    parts = [
        f"{count}/{refusal.total} {reason.value}" if refusal.total else reason.value for reason, count in refusal.counts
    ]
    return ", ".join(sorted(parts))
