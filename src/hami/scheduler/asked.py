"""Names of nodes between the wire and a decision: bytes as long as nobody needs strings (`ledger.sent`)."""

from collections.abc import Sequence

from msgspec import Raw

from hami.ledger.sent import Sent
from hami.wire.extender import FilterArgs


def asked(args: FilterArgs) -> Sequence[str]:
    """The nodes that a request is about. Raises `Malformed`."""
    listed = args.listed
    sent = None if listed is None else Sent.of(listed)
    return args.names() if sent is None else sent


def answered(names: Sequence[str]) -> Sequence[str] | Raw:
    """Names for the answer, as they were sent where they were."""
    return Raw(names.json()) if isinstance(names, Sent) else names
