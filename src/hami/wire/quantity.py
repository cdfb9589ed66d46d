"""Kubernetes quantities, read exactly.

The grammar is apimachinery's: a signed decimal number and one suffix, binary
(`Ki`), decimal (`n u m k M G T P E`) or an exponent (`e3`). Values are whole or
`Fraction`, never a float: what a user wrote and what we count are the same number.
Knows numbers only; which range a resource allows is its vendor's business.
"""

import re
from fractions import Fraction

from hami.model.errors import Malformed

_GRAMMAR = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,4})?"
)
_MAX_LENGTH = 64
_MAX_EXPONENT = 64  # Kubernetes caps values at 2^63; this only keeps 1e999999999 from costing memory
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_WHOLE = {"k": 10**3, "M": 10**6, "G": 10**9}
_ALLOWED = "a Kubernetes quantity: a number and one suffix of n u m k M G T P E Ki Mi Gi Ti Pi Ei, or an exponent"


def parse(text: str | int | float, path: str = "$") -> Fraction:
    """The exact value of a quantity, as text or as the bare number JSON carried.

    Raises `Malformed` where it is none.
    """
    if isinstance(text, int):
        return Fraction(text)
    literal = str(text)  # of a JSON number: its shortest form, which is what was written
    match = _GRAMMAR.fullmatch(literal) if len(literal) <= _MAX_LENGTH else None
    if match is None:
        raise Malformed(path, text, _ALLOWED)
    number: Fraction = Fraction(match["number"])
    suffix: str = match["suffix"] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    power = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    if abs(power) > _MAX_EXPONENT:
        raise Malformed(path, text, f"an exponent of at most {_MAX_EXPONENT}")
    scale = Fraction(10 ** abs(power))
    return number * scale if power >= 0 else number / scale


def whole(text: str | int | float, path: str, low: int, high: int) -> int:
    """A quantity that must be an integer in [low, high]; else `Malformed`.

    The API server rewrites what users write (5000 becomes ``5k``), so suffixes
    are no sign of a mistake.
    """
    if isinstance(text, str) and len(text) <= 18 and text.isascii():  # nearly all of them
        digits, scale = (text, 1) if text.isdigit() else (text[:-1], _WHOLE.get(text[-1:], 0))
        if scale and digits.isdigit() and low <= int(digits) * scale <= high:
            return int(digits) * scale
    value = parse(text, path)
    if value.denominator != 1 or not low <= value <= high:
        raise Malformed(path, text, f"a whole number from {low} to {high}")
    return int(value)


def binary_suffix(text: str | int | float) -> bool:
    """Whether a well-formed quantity counts in powers of 1024, that is, in bytes where memory is meant."""
    return isinstance(text, str) and text.endswith("i")
