import pytest

from hami.agent.cards.xids import XidRules, describe, rules
from hami.model.errors import Malformed


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_a_programs_own_faults_are_no_illness(xid: int) -> None:
    assert not XidRules().matters(xid)


@pytest.mark.parametrize(
    ("disable", "enable", "matters", "off"),
    [
        ("", "", {48, 79}, False),
        ("79", "", {48}, False),
        ("79, 48", "", set(), False),
        ("all", "", set(), True),
        ("xids", "", set(), True),
        ("all", "79", {79}, False),
        ("all", "all", {13, 48, 79}, False),
        ("", "13", {13, 48, 79}, False),
        ("79", "79", {48, 79}, False),
    ],
)
def test_enabling_wins_over_disabling_and_both_over_the_list(
    disable: str, enable: str, matters: set[int], off: bool
) -> None:
    made = rules({"DP_DISABLE_HEALTHCHECKS": disable, "DP_ENABLE_HEALTHCHECKS": enable})
    assert {xid for xid in (13, 48, 79) if made.matters(xid)} == matters
    assert made.off is off


def test_a_word_that_is_no_xid_is_refused() -> None:
    with pytest.raises(Malformed, match="DP_DISABLE_HEALTHCHECKS: 'many' is not usable: a comma list of all, xids"):
        rules({"DP_DISABLE_HEALTHCHECKS": "many"})


def test_an_xid_is_told_with_its_meaning() -> None:
    assert describe(79) == "Xid 79 (the card has fallen off the bus)"
    assert describe(999) == "Xid 999"
