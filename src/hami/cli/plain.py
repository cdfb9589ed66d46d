"""Output for terminals that have no UTF-8: bars, rules and arrows in ASCII, where Python would end with a traceback.

One sign for one sign, so that columns stay where they are.
"""

import codecs
import sys
from io import TextIOWrapper

NAME = "hami-plain"
SIGNS = dict(zip("█░─━╸╺→…±·", "#.---->.+.", strict=True))


def replaced(fault: UnicodeError) -> tuple[str, int]:
    """What to write in place of what the stream's encoding has not, and where to go on."""
    if not isinstance(fault, UnicodeEncodeError):
        raise fault
    return "".join(SIGNS.get(sign, "?") for sign in fault.object[fault.start : fault.end]), fault.end


def prepare() -> None:
    """Let both streams write what they can of whatever they are given."""
    codecs.register_error(NAME, replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # none that was closed, and none of a test's
            stream.reconfigure(errors=NAME)
