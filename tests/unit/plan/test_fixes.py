"""Fixes for pods of several containers, which ask unlike each other."""

from hami.model.ask import Ask
from hami.plan.advice.fixes import EFFORT, Change, Fix, fixes
from hami.plan.exact.fit import fits
from hami.plan.snapshot import CardState
from hami.plan.steps import finish

from .builders import app, node, pod, used, want
from .followed import applied


def found(ask: Ask, *cards: CardState) -> dict[Change, Fix]:
    return {fix.change: fix for fix in finish(fixes(ask, node(*cards)))}


def test_the_most_that_fits_is_below_the_largest_of_all_asks() -> None:
    """The small one is no bound: the large one may ask up to what is left beside it."""
    fix = found(pod(app(want(9000)), app(want(500))), used("d0"))[Change.LESS_MEMORY]
    assert (fix.value, fix.effort) == (7500, 1 - 7500 / 9000)
    fix = found(pod(app(want(percent=90)), app(want(percent=20))), used("d0"))[Change.LESS_MEMORY]
    assert (fix.value, fix.text) == (80, "ask at most 80 % of a card's memory")
    fix = found(pod(app(want(1, cores=90)), app(want(1, cores=20))), used("d0"))[Change.LESS_CORES]
    assert fix.value == 80
    fix = found(pod(app(want(8000, cards=3)), app(want(8000, cards=1))), used("d0"), used("d1"), used("d2"))[
        Change.FEWER_CARDS
    ]
    assert (fix.value, fix.text) == (2, "ask at most 2 cards")


def test_one_percent_of_the_cores_is_something() -> None:
    fix = found(pod(app(want(8001, cores=50))), used("d0", 1, 0, 99))[Change.LESS_OF_BOTH]
    assert (fix.value, fix.cores) == (8000, 1)


def test_less_memory_and_fewer_cores_together_fit_whether_they_are_mib_or_percent() -> None:
    state = used("d0", 1, 4000, 60)
    for wanted, words in ((want(9000, cores=50), "4000 MiB"), (want(percent=90, cores=50), "50 % of its memory")):
        ask = pod(app(wanted))
        fix = found(ask, state)[Change.LESS_OF_BOTH]
        assert fix.text == f"ask at most {words} and 40 % of the cores a card"
        changed = applied(fix, ask)
        assert fits(changed, node(state))
        assert changed.containers[0].cards[0].core_percent == 40


def test_one_binding_of_several_containers_can_be_dropped() -> None:
    cards = (used("d0", numa=0), used("d1", numa=1))
    ask = pod(app(want(1000)), app(want(1000, cards=2, numa_bind=True)))
    assert fits(applied(found(ask, *cards)[Change.ANY_NUMA], ask), node(*cards))
    assert Change.ANY_NUMA not in found(pod(app(want(9000)), app(want(1000, cards=2))), *cards)


def test_a_type_that_one_container_accepts_and_the_other_does_not_is_named() -> None:
    ask = pod(app(want(1000)), app(want(1000, use_types=("H100",))))
    assert found(ask, used("d0"))[Change.OTHER_TYPE].model == "NVIDIA-A100"
    both = pod(app(want(9000, use_types=("A100",))), app(want(1000)))
    assert Change.OTHER_TYPE not in found(both, used("d0"))


def test_a_mode_alone_makes_no_type_a_stranger() -> None:
    ask = pod(app(want(9000, modes=("hami-core",))))
    assert set(found(ask, used("d0"))) == {Change.LESS_MEMORY}


def test_a_node_without_cards_has_nothing_to_be_changed() -> None:
    assert finish(fixes(pod(app(want(1000, cores=5, cards=2))), node())) == []


def test_each_change_is_told_in_words() -> None:
    assert [change.value for change in Change] == [
        "ask less memory", "ask fewer cores", "ask less memory and fewer cores", "ask fewer cards",
        "accept another type", "drop the type, uuid and mode rules", "drop the NUMA binding",
        "uncordon a card", "move a pod away", "end a pod",
    ]  # fmt: skip
    assert Fix(Change.END_POD, "end it").effort == 0


def test_of_several_ways_to_ask_less_of_both_the_nearest_is_told() -> None:
    """6000 of 8000 MiB and 20 of 50 %: less is given up in all than by 2000 MiB and 40 %."""
    cards = (used("d0", 1, 2000, 80), used("d1", 1, 6000, 60))
    told = finish(fixes(pod(app(want(8000, cores=50))), node(*cards)))
    assert [(fix.value, fix.cores) for fix in told if fix.change is Change.LESS_OF_BOTH] == [(6000, 20)]


def test_a_rule_given_up_counts_as_half_a_quantity_and_all_of_them_as_three_quarters() -> None:
    typed = found(pod(app(want(8000, use_types=("H100",)))), used("d0"))
    apart = found(pod(app(want(8000, cards=2, numa_bind=True))), used("d0"), used("d1", numa=1))
    named = found(pod(app(want(8000, use_ids=("d9",)))), used("d0"))
    efforts = typed[Change.OTHER_TYPE].effort, apart[Change.ANY_NUMA].effort, named[Change.NO_RULES].effort
    assert efforts == (0.5, 0.5, 0.75)


def test_what_others_have_to_do_counts_as_a_whole_quantity_given_up_and_the_end_of_a_pod_as_two() -> None:
    assert EFFORT[Change.UNCORDON] == EFFORT[Change.MOVE_POD] == 1
    assert EFFORT[Change.END_POD] == 2
