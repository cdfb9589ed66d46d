"""Quantities mean exactly what Kubernetes means by them."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.errors import Malformed
from hami.wire.quantity import binary_suffix, parse, whole

GOLDEN = {
    "0": 0,
    "5000": 5000,
    "5k": 5000,
    "+5k": 5000,
    "-5k": -5000,
    "5Ki": 5120,
    "1Mi": 1 << 20,
    "1.5Gi": 3 << 29,
    "16Ti": 16 << 40,
    "1Pi": 1 << 50,
    "1Ei": 1 << 60,
    "3M": 3 * 10**6,
    "3G": 3 * 10**9,
    "3T": 3 * 10**12,
    "3P": 3 * 10**15,
    "3E": 3 * 10**18,
    "3e3": 3000,
    "3E3": 3000,
    "3e+3": 3000,
    "3000e-3": 3,
    "1.": 1,
    ".5": Fraction(1, 2),
    "0.1": Fraction(1, 10),
    "100m": Fraction(1, 10),
    "7u": Fraction(7, 10**6),
    "7n": Fraction(7, 10**9),
    "123456789012345678901234567890": 123456789012345678901234567890,
}
NO_QUANTITIES = [
    "", " ", "5 k", " 5", "5\n", "k", ".", "+", "--5", "5kk", "5Kib", "5ki", "5mi", "5K", "5e", "5e3k", "5e1.5",
    "1_000", "٣", "5KI", "0x10", "nan", "inf", "1e99999", "1e9999", "9" * 65,
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), GOLDEN.items())
def test_every_suffix_is_read_exactly(text: str, value: Fraction | int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", NO_QUANTITIES)
def test_what_is_no_quantity_is_refused_with_its_path_and_value(text: str) -> None:
    with pytest.raises(Malformed) as fault:
        parse(text, "spec.containers[0].resources.limits[x]")
    assert fault.value.path == "spec.containers[0].resources.limits[x]"
    assert fault.value.value == text


def test_bare_json_numbers_are_read_as_they_were_written() -> None:
    assert parse(4000) == 4000
    assert parse(0.1) == Fraction(1, 10)
    assert parse(1e22) == 10**22


@given(st.integers(-(10**30), 10**30), st.sampled_from(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"]))
def test_decimal_suffixes_scale_by_powers_of_ten(number: int, suffix: str) -> None:
    power = dict(zip(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], range(-9, 19, 3), strict=False))[suffix]
    assert parse(f"{number}{suffix}") == number * Fraction(10) ** power


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**15), max_value=10**15))
def test_decimal_fractions_lose_nothing(number: object) -> None:
    assert parse(f"{number:f}") == Fraction(str(number))


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(parse(text), Fraction)


def test_a_whole_number_may_be_written_in_any_form_but_must_be_whole_and_in_range() -> None:
    assert [whole(text, "p", 1, 5000) for text in ("5000", "5k", "5e3", "5000000m", "5000.0", 5000)] == [5000] * 6
    for text in ("5001", "0", "-1", "1.5", "100m", "5Ki"):
        with pytest.raises(Malformed, match="a whole number from 1 to 5000"):
            whole(text, "p", 1, 5000)


def test_binary_suffixes_are_told_from_decimal_ones() -> None:
    assert binary_suffix("5Gi")
    assert not binary_suffix("5G")
    assert not binary_suffix(5)
