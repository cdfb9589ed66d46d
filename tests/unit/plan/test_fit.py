"""One node, one ask: the rules by name, the cards chosen, the words of a refusal."""

import pytest
from msgspec.structs import replace

from hami.model.ask import ContainerKind, Weights
from hami.model.plan import Plan
from hami.model.refusal import CardRefusal, Reason, Refusal
from hami.plan.exact import score
from hami.plan.exact.draft import Draft
from hami.plan.exact.fit import fit
from hami.plan.exact.search import CHOICES, Search
from hami.plan.exact.wants import Want, wants
from hami.plan.policies import chain
from hami.plan.snapshot import CardState, NodeState

from .builders import NVIDIA, OTHER, app, card, init, node, pod, sidecar, used, want
from .migs import empty, one, placed


def refusal(*args: object, **more: object) -> Refusal:
    result = fit(*args, **more)
    assert isinstance(result, Refusal)
    return result


def cards(result: Plan | Refusal) -> list[list[str]]:
    assert isinstance(result, Plan), result
    return [[part.card for part in container] for container in result.containers]


@pytest.mark.parametrize(
    ("state", "asked", "reason"),
    [
        (used(healthy=False), want(), "CardNotHealth"),
        (used(cordoned=True), want(), "CardCordoned"),
        (used(), want(use_types=("V100",)), "CardTypeMismatch"),
        (used(), want(nouse_types=("a100",)), "CardTypeMismatch"),
        (used(mode="mig"), want(modes=("hami-core",)), "CardTypeMismatch"),
        (used(), want(use_ids=("d1",)), "CardUuidMismatch"),
        (used(), want(nouse_ids=("d0",)), "CardUuidMismatch"),
        (used(slots=10), want(), "CardTimeSlicingExhausted"),
        (used(slots=1, mem=7001), want(1000), "CardInsufficientMemory"),
        (used(slots=1, cores=90), want(cores=20), "CardInsufficientCore"),
        (used(slots=1), want(cores=100), "ExclusiveDeviceAllocateConflict"),
        (used(slots=1, cores=100), want(cores=0), "CardComputeUnitsExhausted"),
        (used(slots=1, cores=110), want(cores=0), "CardInsufficientCore"),
    ],
)
def test_each_rule_refuses_a_card_by_its_name(state: CardState, asked: object, reason: str) -> None:
    found = refusal(pod(app(asked)), node(state))
    assert found.reason.value == reason
    assert found.total == 1
    assert found.text.startswith(f"1/1 {reason}")


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        (used(), want(use_types=("h100", "A100"))),
        (used(model="GeForce 1080 Ti"), want(use_types=("1080",))),
        (used(mode="mps"), want(modes=("mig", "mps"))),
        (used(), want(use_ids=("d0",), nouse_ids=("d1",))),
        (used(slots=9), want()),
        (used(slots=1, mem=7000), want(1000)),
        (used(slots=1, cores=80), want(cores=20)),
        (used(slots=1, cores=99), want(cores=0)),
        (used(slots=1, core_percent=200), want(cores=100)),
        (used(core_percent=0), want(cores=0)),
    ],
)
def test_what_just_fits_is_accepted(state: CardState, asked: object) -> None:
    assert cards(fit(pod(app(asked)), node(state))) == [["d0"]]


def test_the_first_rule_that_fails_is_the_reason() -> None:
    state = used(slots=10, mem=8000, cores=100, healthy=False, cordoned=True)
    assert refusal(pod(app(want(use_types=("V100",)))), node(state)).reason is Reason.NOT_HEALTHY
    assert (
        refusal(pod(app(want(cores=20))), node(used(slots=1, mem=8000, cores=100))).reason is Reason.INSUFFICIENT_MEMORY
    )


def test_mutex_takes_only_a_card_nobody_uses() -> None:
    ask = pod(app(want()), cards=("mutex",))
    assert cards(fit(ask, node(used("d0", slots=1), used("d1")))) == [["d1"]]
    assert refusal(ask, node(used("d0", slots=1))).reason is Reason.EXCLUSIVE_CONFLICT


def test_a_refusal_counts_every_cards_reason_and_tells_what_the_best_one_misses() -> None:
    found = refusal(pod(app(want(9000))), node(used("d0"), used("d1", mem=500), used("d2", healthy=False)))
    assert found.text == "1/3 CardNotHealth, 2/3 CardInsufficientMemory: missing 1000 MiB on the best card"
    assert found.cards == (
        CardRefusal("d0", Reason.INSUFFICIENT_MEMORY, 9000, 8000),
        CardRefusal("d1", Reason.INSUFFICIENT_MEMORY, 9000, 7500),
        CardRefusal("d2", Reason.NOT_HEALTHY),
    )


def test_more_cards_than_the_node_has_is_said_in_numbers() -> None:
    assert refusal(pod(app(want(cards=2))), node(used())).text == (
        "NodeInsufficientDevice: asks 2 cards, the node has 1"
    )


def test_too_few_fitting_cards_are_counted_as_partly_fitting() -> None:
    found = refusal(pod(app(want(7000, cards=2))), node(used("d0"), used("d1", mem=3000), used("d2", mem=4000)))
    assert found.text == (
        "1/3 AllocatedCardsInsufficientRequest, 2/3 CardInsufficientMemory: "
        "asks 2 cards, 1 of 3 fit; missing 2000 MiB on the next card"
    )


def test_another_familys_cards_do_not_count() -> None:
    assert refusal(pod(app(want(family=OTHER))), node(used())).text == (
        "Device type not found: the node has no DCU card"
    )
    mixed = node(used("d0"), used("d1", family=OTHER))
    assert cards(fit(pod(app(want(family=OTHER), want())), mixed)) == [["d1", "d0"]]
    assert refusal(pod(app(want(cards=2))), mixed).detail == "asks 2 cards, the node has 1"


def test_a_node_with_a_problem_gives_the_problem() -> None:
    found = refusal(pod(app(want())), node(used(), problem="no handshake for 61 s"))
    assert found.text == "node unregistered: no handshake for 61 s"


def test_cards_of_one_container_are_different_ones() -> None:
    result = fit(pod(app(want(1000, cards=2))), node(used("d0"), used("d1")))
    assert cards(result) == [["d0", "d1"]]


def test_a_percentage_is_of_each_card_and_rounded_down() -> None:
    result = fit(pod(app(want(percent=30, cards=2))), node(used("d0", mem_mib=40960), used("d1", mem_mib=32767)))
    assert isinstance(result, Plan)
    assert [part.mem_mib for part in result.containers[0]] == [12288, 9830]


def test_containers_keep_their_place_and_those_without_an_ask_stay_empty() -> None:
    result = fit(pod(init(), init(want(3000)), app(), app(want(1000))), node(used()))
    assert cards(result) == [[], ["d0"], [], ["d0"]]


def test_app_containers_add_up_and_init_containers_do_not() -> None:
    one = node(used())
    assert isinstance(fit(pod(init(want(8000)), init(want(8000)), app(want(8000))), one), Plan)
    assert isinstance(fit(pod(app(want(4000)), app(want(4000))), one), Plan)
    assert isinstance(fit(pod(app(want(4000)), app(want(4001))), one), Refusal)
    assert isinstance(fit(pod(sidecar(want(4000)), init(want(4000)), app(want(4000))), one), Plan)
    assert isinstance(fit(pod(sidecar(want(4000)), init(want(4001)), app(want(4000))), one), Refusal)
    assert isinstance(fit(pod(init(want(4001)), sidecar(want(4000)), app(want(4000))), one), Plan)


def test_containers_that_fit_only_one_at_a_time_say_so() -> None:
    found = refusal(pod(app(want(5000)), app(want(5000))), node(used()))
    assert found.text == (
        "AllocatedCardsInsufficientRequest: each container fits by itself, but not all that run at the same time"
    )
    assert found.cards == (CardRefusal("d0", Reason.INSUFFICIENT_MEMORY, 5000, 3000),)


def test_a_first_choice_that_leaves_a_later_container_without_a_card_is_taken_back() -> None:
    """Spread would give the small container the empty card, which only that card can give the large one."""
    result = fit(pod(app(want(1000)), app(want(8000))), node(used("d0", mem=4000, slots=1), used("d1")))
    assert cards(result) == [["d0"], ["d1"]]


def test_numa_bind_takes_all_cards_of_a_container_from_one_numa_node() -> None:
    ask = pod(app(want(5000, cards=2, numa_bind=True)))
    split = node(used("d0", numa=0, mem=1), used("d1", numa=1), used("d2", numa=1, mem=2))
    assert cards(fit(ask, split)) == [["d1", "d2"]]
    found = refusal(ask, node(used("d0", numa=0), used("d1", numa=1)))
    assert found.text == (
        "1/2 AllocatedCardsInsufficientRequest, 1/2 NumaNotFit: asks 2 cards on one NUMA node, at most 1 there fit"
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (("binpack",), "d1"),
        (("spread",), "d3"),
        ((), "d3"),
        (("unknown",), "d3"),
        (("mutex",), "d0"),
        (("numa",), "d1"),
        (("numa", "spread"), "d2"),
        (("numa", "binpack"), "d1"),
        (("mutex", "binpack"), "d0"),
        (("spread", "numa"), "d3"),
    ],
)
def test_a_chain_of_policies_chooses_the_card(policy: tuple[str, ...], expected: str) -> None:
    state = node(
        used("d0", numa=1, mem_mib=4000),
        used("d1", numa=0, slots=2, mem=2000, cores=50),
        used("d2", numa=0, slots=1, mem=1000),
        used("d3", numa=1, mem_mib=16000, slots=1 if "mutex" in policy else 0),
    )
    assert cards(fit(pod(app(want(1000)), cards=policy), state)) == [[expected]]


def test_equal_cards_are_taken_by_index() -> None:
    state = node(used("d1"), used("d0"), used("d2"))
    for policy in ("binpack", "spread", "numa", "mutex"):
        assert cards(fit(pod(app(want()), cards=(policy,)), state)) == [["d0"]]


def test_weights_change_which_card_is_fuller() -> None:
    state = node(used("d0", slots=5, mem=800), used("d1", slots=1, mem=2400))
    assert cards(fit(pod(app(want()), cards=("binpack",)), state)) == [["d0"]]
    heavy = pod(app(want()), cards=("binpack",), weights=Weights(slot=1, core=1, memory=3))
    assert cards(fit(heavy, state)) == [["d1"]]


def test_a_node_is_scored_as_it_is_before_the_ask() -> None:
    assert score.node((used("d0"), used("d1"))) == 0
    assert score.node((used("d0", slots=5, mem=4000, cores=50),)) == 15
    assert score.node((used("d0", slots=5, mem=4000, cores=50), used("d1"))) == 7.5
    assert score.node(()) == 0
    assert score.node((used(slots=0, mem=0, mem_mib=0),)) == 0


def test_the_documented_examples_have_the_documented_scores() -> None:
    first = replace(card(), slots=4, mem_mib=32768, core_percent=400)
    assert score.node((CardState(first, 3, 20480, 240),)) == pytest.approx(19.75)
    assert score.node((CardState(first, 2, 8192, 120),)) == pytest.approx(10.5)
    own, ask = card(slots=10), want(1000, cores=20)
    assert score.card(own, (2, 2000, 10), ask, Weights()) == pytest.approx(9.75)
    assert score.card(own, (6, 6000, 70), ask, Weights()) == pytest.approx(24.75)
    for nothing in ({"slots": 0}, {"mem_mib": 0}, {"core_percent": 0}):
        assert score.card(card(**nothing), (0, 0, 0), ask, Weights()) == 0, "a card without capacity"


def test_a_word_said_twice_counts_once() -> None:
    assert chain(("binpack", "binpack")) == chain(("binpack",))


def test_a_plan_is_charged_and_knows_its_node() -> None:
    state = NodeState("n7", 42, (used("d0", slots=1, mem=800),))
    result = fit(pod(init(want(3000)), app(want(1000, cores=30))), state)
    assert isinstance(result, Plan)
    assert (result.node, result.generation) == ("n7", 42)
    assert [(one.card, one.slots, one.mem_mib, one.core_percent) for one in result.charges] == [("d0", 1, 3000, 30)]
    assert result.containers[1][0].family == NVIDIA


def test_no_pod_makes_a_decision_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first container may have any of five cards, the last only d4 or, later, none: so many choices and no more."""
    sizes = [used(f"d{number}", mem_mib=1000 + number, core_percent=100) for number in range(5)]
    state = node(*sizes)
    asked = pod(app(want(1, cores=100)), app(want(1, cores=100, use_ids=("d0",))), cards=("numa",))
    for bound, fits in ((1, False), (2, True), (3, True)):
        monkeypatch.setattr("hami.plan.exact.search.CHOICES", bound)
        found = Search(Draft(asked, state)).place(range(2))
        assert found == fits
    looked = []
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 4)
    place = Draft.take

    def take(draft: Draft, number: int, choice: object) -> None:
        looked.append(number)
        place(draft, number, choice)  # type: ignore[arg-type]

    monkeypatch.setattr(Draft, "take", take)
    never = pod(app(want(1, cores=100)), app(want(1, cores=100)), app(want(9000)), cards=("numa",))
    assert not Search(Draft(never, state)).place(range(3))
    assert len(looked) <= 4 + 2


def test_cards_that_are_alike_are_tried_once() -> None:
    """Twelve equal cards in pairs: without that, 66 choices of the first container would be tried."""
    state = node(*(used(f"d{number}", core_percent=100) for number in range(12)))
    search = Search(Draft(pod(app(want(8000, cards=2)), app(want(9000))), state))
    assert not search.place(range(2))
    assert search._left == CHOICES - 1


def test_a_container_of_a_family_the_pod_asks_twice_is_refused_by_name() -> None:
    both = pod(app(want(1000), want(1, family=OTHER), name="both"))
    assert refusal(both, node(used("d0"))).text == "Device type not found: the node has no DCU card"
    plan = fit(both, node(used("d0"), used("o1", family=OTHER, model="Hygon-Z100")))
    assert isinstance(plan, Plan)
    assert [(part.card, part.family) for part in plan.containers[0]] == [("d0", NVIDIA), ("o1", OTHER)]


def test_after_cards_that_are_alike_others_are_tried() -> None:
    """Two need d0 and d1, so the first, which may have any, has to take d2."""
    state = node(used("d0"), used("d1"), used("d2", model="NVIDIA-V100"))
    own = want(1, cores=100, use_types=("A100",))
    found = fit(pod(app(want(1, cores=100)), app(own), app(own), cards=("numa",)), state)
    assert cards(found) == [["d2"], ["d0"], ["d1"]]


def test_none_of_something_is_nothing_asked() -> None:
    assert wants(pod(app(want(cards=0)), app(want(cards=1)))) == (Want(1, ContainerKind.APP, want(cards=1)),)


def test_a_card_in_mig_mode_is_not_like_another_that_bears_as_much() -> None:
    """The first container may not take the first card, which is the only one with room for the second."""
    (cut,) = placed(empty("d1"), one(4000)).cards
    plain = CardState(card("d0", slots=7, mem_mib=cut.card.mem_mib), *cut.use)
    plan = fit(pod(app(want(6000)), app(want(31_000)), cards=("binpack",)), node(plain, cut))
    assert isinstance(plan, Plan)
    assert [part.card for container in plan.containers for part in container] == ["d1", "d0"]
