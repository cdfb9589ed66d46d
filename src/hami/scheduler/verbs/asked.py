"""Names of nodes between the wire and a decision: bytes as long as nobody needs strings (`ledger.sent`)."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from hami.ledger.sent import Sent
from hami.scheduler.held.phrases import Spoken
from hami.wire.extender import FilterArgs


def asked(args: FilterArgs) -> Sequence[str]:
    """The nodes that a request is about. Raises `Malformed`."""
    listed = args.listed
    sent = None if listed is None else Sent.of(listed)
    return args.names() if sent is None else sent


def answered(names: Sequence[str]) -> Sequence[str] | Raw:
    """Names for the answer, as they were sent where they were."""
    return Raw(names.json()) if isinstance(names, Sent) else names


def told(spoken: Sequence[Spoken]) -> Mapping[str, str] | Raw:
    """What is said of each node, for the answer: names that are bytes stay so here, too."""
    members = [names.each(msgspec.json.encode(text)) for text, names in spoken if isinstance(names, Sent)]
    if members and len(members) == len(spoken):
        return Raw(b"{" + b"".join(members)[:-1] + b"}")
    return {name: text for text, names in spoken for name in names}
