"""Card policies by the names that pods give them, and what a candidate is by itself."""

import pytest

from hami.plan.policies import CARD_POLICIES, Candidate, CardPolicy, chain

from .builders import card


def test_these_are_the_words_a_pod_may_name() -> None:
    assert set(CARD_POLICIES) == {"binpack", "spread", "numa", "mutex", "topology-aware"}
    assert all(policy.name == name for name, policy in CARD_POLICIES.items())


@pytest.mark.parametrize("name", ["binpack", "spread", "numa", "mutex", "topology-aware"])
def test_only_mutex_asks_for_cards_that_nobody_uses(name: str) -> None:
    assert chain((name,)).idle_only == (name == "mutex")
    assert not CardPolicy("new").idle_only


def candidates() -> list[Candidate]:
    """The second is fuller and on the lower NUMA node; all are of no loss to anybody in MIG mode."""
    cards = (card("d0", numa=1), card("d1", numa=0), card("d2", numa=1))
    return [
        Candidate(place, one, (place, 0, 0), float(score))
        for place, (one, score) in enumerate(zip(cards, (2, 8, 5), strict=True))
    ]


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ((), [0, 2, 1]),
        (("spread",), [0, 2, 1]),
        (("binpack",), [1, 2, 0]),
        (("numa",), [1, 0, 2]),
        (("numa", "binpack"), [1, 2, 0]),
        (("mutex",), [0, 2, 1]),
        (("unheard",), [0, 2, 1]),
    ],
)
def test_each_word_has_its_order(words: tuple[str, ...], order: list[int]) -> None:
    assert [position for (position,) in chain(words).choices(candidates(), 1, {})] == order


def test_who_costs_mig_no_profile_comes_before_who_does() -> None:
    first, second, third = candidates()
    dear = Candidate(first.position, first.card, first.use, first.score, loss=1)
    assert [position for (position,) in chain(("spread",)).choices([dear, second, third], 1, {})] == [2, 1, 0]
