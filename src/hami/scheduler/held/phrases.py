"""Refusals as the texts kube-scheduler gets: made once each, thousands sent a request.

Nodes that fail alike share a number (`plan.fleet.refusals`), so a text belongs to a number, and
nothing here is Python code a node. Knows no HTTP and no ledger.
"""

from collections.abc import Iterator, Sequence

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
Spoken = tuple[str, Sequence[str]]
"""A text, and the nodes that it is said of."""


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

    def spoken(self, refusals: Refusals) -> tuple[list[Spoken], list[Spoken]]:
        """What is said, and of which nodes: reasons that preemption might cure, and those it cannot."""
        curable: list[Spoken] = []
        lasting: list[Spoken] = []
        for phrase, text, names in self._told(refusals):
            (lasting if phrase.lasting else curable).append((text, names))
        return curable, lasting

    def _told(self, refusals: Refusals) -> Iterator[tuple[Phrase, str, Sequence[str]]]:
        """Each text and its nodes: in full while there are few, else without the quantities."""
        forms, alike = refusals.forms, refusals.alike_by_pair(SPOKEN)
        if alike is None:
            for number, names in refusals.alike_by_number():
                phrase = self._phrase(forms[number])
                yield phrase, phrase.brief, names
            return
        for number, missing, names in alike:
            phrase = self._phrase(forms[number])
            yield phrase, phrase.text(missing), names

    def reasons(self, refusals: Refusals) -> Texts:
        """The main reason by node, one word each."""
        words = {number: self._phrase(refusals.forms[number]).reason for number in refusals.tally()}
        return dict(zip(refusals.names, refusals.by_number(words), strict=True))

    def tally(self, refusals: Refusals) -> dict[str, int]:
        """How many nodes have each main reason."""
        counts: dict[str, int] = {}
        for number, nodes in refusals.tally().items():
            reason = self._phrase(refusals.forms[number]).reason
            counts[reason] = counts.get(reason, 0) + nodes
        return counts

    def _phrase(self, form: Form) -> Phrase:
        found = self._phrases.get(id(form))
        if found is None:
            if len(self._phrases) >= KEPT:
                self._phrases.clear()
            lasting = all(reason in LASTING for reason, _ in form.counts)
            refusal = form.say(None)
            found = self._phrases[id(form)] = Phrase(form, brief(refusal), refusal.reason.value, lasting)
        return found


def brief(refusal: Refusal) -> str:
    """The reasons without the quantities, of which there are few on any cluster."""
    parts = [
        f"{count}/{refusal.total} {reason.value}" if refusal.total else reason.value for reason, count in refusal.counts
    ]
    return ", ".join(sorted(parts))
