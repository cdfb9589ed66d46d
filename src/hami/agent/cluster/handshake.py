"""The sign of life on the node, ``hami.io/node-handshake: Reported_YYYY-MM-DD HH:MM:SS``.

HAMi's form, in UTC: HAMi wrote the local time without a zone, which a scheduler
elsewhere reads wrongly. Ours takes any change of the value as life, and the time
in it only when it has just started, so clocks that differ do no harm.
"""

from hami.wire.annotations import encode_handshake

WORD = "Reported"
"""An agent's word; a scheduler's is ``Requesting``."""


def report(now: float) -> str:
    """The annotation's value at `now`, Unix seconds."""
    return encode_handshake(WORD, now)
