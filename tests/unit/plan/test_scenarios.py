"""The scenario inventory of HAMi's own tests, as tables (scheduler.md 10.1, 10.2, 10.3, 10.10); rows 6.1 to 6.8."""

import pytest

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, NodePolicy, PodRef, Weights
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.model.refusal import Refusal
from hami.plan.exact import score
from hami.plan.exact.charge import charges
from hami.plan.exact.fit import fit
from hami.plan.snapshot import CardState, NodeState

from .builders import OTHER, app, card, init, node, pod, used, want

BINPACK, SPREAD = NodePolicy.BINPACK, NodePolicy.SPREAD


def holding(ledger: Ledger, name: str, where: str, *, mem: int, cores: int) -> None:
    ref = PodRef("ns", f"on-{name}", PodUid(f"on-{name}"))
    ledger.set_pod(PodRecord(ref, NodeName(where), (), (Charge(name, 1, mem, cores),)))


@pytest.fixture
def two_nodes() -> Ledger:
    """10.1: node1 = d1 used 2000 MiB and 25 %, d2 idle; node2 = d3 idle, d4 used 6000 MiB and 75 %."""
    ledger = Ledger()
    for name, cards in (("node1", ("d1", "d2")), ("node2", ("d3", "d4"))):
        ledger.set_node(NodeRecord(NodeName(name), tuple(card(each, mem_mib=8000) for each in cards)))
    holding(ledger, "d1", "node1", mem=2000, cores=25)
    holding(ledger, "d4", "node2", mem=6000, cores=75)
    return ledger


@pytest.mark.parametrize(
    ("nodes", "cards", "where"),
    [
        (BINPACK, "binpack", ("node2", "d4")),
        (BINPACK, "spread", ("node2", "d3")),
        (SPREAD, "binpack", ("node1", "d1")),
        (SPREAD, "spread", ("node1", "d2")),
    ],
)
def test_each_pair_of_policies_takes_hamis_card(
    two_nodes: Ledger, nodes: NodePolicy, cards: str, where: tuple[str, str]
) -> None:
    plan = two_nodes.decide(pod(app(want(1000, cores=20)), nodes=nodes, cards=(cards,))).plan
    assert plan is not None
    assert (plan.node, plan.containers[0][0].card) == where


def test_an_init_container_and_an_app_container_need_the_larger_not_the_sum(two_nodes: Ledger) -> None:
    plan = two_nodes.decide(pod(init(want(5000)), app(want(4000)), cards=("binpack",))).plan
    assert plan is not None
    assert (plan.node, plan.charges) == ("node2", (Charge("d3", 1, 5000, 0),))


def test_a_pod_that_is_filtered_again_meets_not_itself(two_nodes: Ledger) -> None:
    ask = pod(app(want(7000, cards=1)), uid="again", cards=("binpack",))
    for _ in range(3):
        plan = two_nodes.decide(ask).plan
        assert plan is not None
        two_nodes.reserve(ask, plan, 0.0, 10.0)
        assert plan.containers[0][0].card == "d3"
        assert two_nodes.recount() == []


@pytest.mark.parametrize(
    ("cards", "value"),
    [
        ((used("d0"), used("d1")), 0.0),
        ((CardState(card("d0", slots=10), 5, 4000, 50),), 15.0),
        ((CardState(card("d0", slots=10), 5, 4000, 50), used("d1")), 7.5),
        ((CardState(card("d0", slots=100), 50, 8000, 100), CardState(card("d1", slots=150), 75, 8000, 100)), 25.0),
        ((CardState(card("d0", slots=4, mem_mib=32768, core_percent=400), 3, 20480, 240),), 19.75),
        ((CardState(card("d0", slots=4, mem_mib=32768, core_percent=400), 2, 8192, 120),), 10.5),
        ((CardState(card("d0", slots=0)),), 0.0),
    ],
)
def test_a_node_s_score_is_hamis_formula(cards: tuple[CardState, ...], value: float) -> None:  # 6.6
    assert score.node(cards) == pytest.approx(value)


@pytest.mark.parametrize(("use", "value"), [((2, 2000, 10), 9.75), ((6, 6000, 70), 24.75)])
def test_a_card_s_score_is_the_documented_one(use: tuple[int, int, int], value: float) -> None:  # 6.7
    assert score.card(card(slots=10), use, want(1000, cores=20), Weights()) == pytest.approx(value)


@pytest.mark.parametrize(
    ("weights", "taken"),
    [(Weights(), "d0"), (Weights(1, 1, 0), "d0"), (Weights(0, 0, 1), "d1"), (Weights(1, 1, 3), "d1")],
)
def test_weights_turn_the_order_round(weights: Weights, taken: str) -> None:  # 6.16, 10.10
    state = node(used("d0", slots=4, mem=1000, cores=40), used("d1", slots=1, mem=5000, cores=10))
    plan = fit(pod(app(want(500)), cards=("binpack",), weights=weights), state)
    assert isinstance(plan, Plan)
    assert plan.containers[0][0].card == taken


A, B = want(1000), want(2000)


@pytest.mark.parametrize(
    ("containers", "record"),
    [
        ((app(A), app(B)), [1, 1]),
        ((app(), app(A)), [0, 1]),
        ((app(A), app(), app(B)), [1, 0, 1]),
        ((init(), init(A), app(B)), [0, 1, 1]),
        ((app(want(1000, cards=2)),), [2]),
    ],
)
def test_every_container_has_its_entry(containers: tuple[ContainerAsk, ...], record: list[int]) -> None:  # 10.2
    plan = fit(pod(*containers), node(used("d0"), used("d1")))
    assert isinstance(plan, Plan)
    assert [len(slices) for slices in plan.containers] == record
    kinds = [one.kind for one in containers]
    assert plan.charges == charges(list(zip(kinds, plan.containers, strict=True)))


def test_two_containers_spread_over_two_cards() -> None:  # 10.2
    plan = fit(pod(app(A), app(A), cards=("spread",)), node(used("d0"), used("d1")))
    assert isinstance(plan, Plan)
    assert [part.card for slices in plan.containers for part in slices] == ["d0", "d1"]


def test_two_shares_fill_a_card_exactly() -> None:  # 10.11
    forty, sixty = want(percent=40, cores=60), want(percent=60, cores=40)
    state = node(used("d0", mem_mib=10000))
    plan = fit(pod(app(forty)), state)
    assert isinstance(plan, Plan)
    full = state.bearing(plan.charges)
    plan = fit(pod(app(sixty)), full)
    assert isinstance(plan, Plan)
    assert full.bearing(plan.charges).cards[0].use == (2, 10000, 100)
    assert isinstance(fit(pod(app(want(percent=61, cores=40))), full), Refusal)
    assert isinstance(fit(pod(app(want(percent=60, cores=41))), full), Refusal)


def test_weights_count_for_init_containers_and_between_equal_links() -> None:  # 10.2
    """By slots and cores d0 is fuller, by memory d1."""
    cards = (used("d0", slots=4, mem=1000, cores=40), used("d1", slots=1, mem=5000, cores=10))
    links = {CardId("d0"): {CardId("d1"): 5}, CardId("d1"): {CardId("d0"): 5}}
    for container, policy in ((init(want(500)), ("binpack",)), (app(want(500)), ("topology-aware", "binpack"))):
        for weights, taken in ((Weights(), "d0"), (Weights(1, 1, 3), "d1")):
            state = NodeState(NodeName("n"), 1, cards, links=links)
            plan = fit(pod(container, cards=policy, weights=weights), state)
            assert isinstance(plan, Plan)
            assert plan.containers[0][0].card == taken


FULL = used("d0", slots=10)


@pytest.mark.parametrize(
    ("state", "ask", "said"),
    [
        ((used("d0"), used("d1")), pod(app(want(9000))), "2/2 CardInsufficientMemory"),
        ((used("d0"), used("d1")), pod(init(want(1, cores=101)), app(want(1))), "2/2 CardInsufficientCore"),
        ((used("d0"), used("d1")), pod(init(want(9000)), app(want(1))), "2/2 CardInsufficientMemory"),
        ((used("d0"),), pod(app(want(1, cards=2))), "NodeInsufficientDevice"),
        ((used("d0"),), pod(app(want(1, family=OTHER))), "Device type not found"),
        ((FULL,), pod(app(want(1))), "1/1 CardTimeSlicingExhausted"),
        ((used("d0", slots=1),), pod(app(want(1, cores=100))), "1/1 ExclusiveDeviceAllocateConflict"),
        ((used("d0", slots=1, cores=100),), pod(app(want(1))), "1/1 CardComputeUnitsExhausted"),
        ((used("d0"),), pod(app(want(1, use_types=("V100",)))), "1/1 CardTypeMismatch"),
        ((used("d0"),), pod(app(want(1, use_ids=("d9",)))), "1/1 CardUuidMismatch"),
        ((used("d0", cordoned=True),), pod(app(want(1))), "1/1 CardCordoned"),
        ((used("d0", healthy=False),), pod(app(want(1))), "1/1 CardNotHealth"),
        ((used("d0", slots=1),), pod(app(want(1)), cards=("mutex",)), "1/1 ExclusiveDeviceAllocateConflict"),
        (
            (used("d0", numa=0), used("d1", numa=1)),
            pod(app(want(1, cards=2, numa_bind=True))),
            "1/2 AllocatedCardsInsufficientRequest, 1/2 NumaNotFit",
        ),
        (
            (used("d0", mem=8000), used("d1", healthy=False), used("d2", cordoned=True), FULL),
            pod(app(want(1, cards=1))),
            "1/4 CardCordoned, 1/4 CardInsufficientMemory, 1/4 CardNotHealth, 1/4 CardTimeSlicingExhausted",
        ),
    ],
)
def test_a_refusal_is_in_hamis_words(state: tuple[CardState, ...], ask: Ask, said: str) -> None:  # 10.3
    found = fit(ask, node(*state))
    assert isinstance(found, Refusal)
    assert found.text.startswith(said)


def order(policy: tuple[str, ...], numa_bind: bool = False) -> str:
    """The card taken first of four: numa and fullness differ."""
    state = node(
        used("d0", slots=2, mem=2000, numa=0),
        used("d1", slots=4, mem=4000, numa=0),
        used("d2", slots=1, mem=1000, numa=1),
        used("d3", slots=5, mem=5000, numa=1),
    )
    plan = fit(pod(app(want(10, numa_bind=numa_bind)), cards=policy), state)
    assert isinstance(plan, Plan)
    return plan.containers[0][0].card


@pytest.mark.parametrize(
    ("policy", "first"),
    [
        (("binpack",), "d3"),
        (("spread",), "d2"),
        ((), "d2"),
        (("nonsense",), "d2"),
        (("topology-aware",), "d2"),
        (("numa", "spread"), "d0"),
        (("numa", "binpack"), "d1"),
        (("binpack", "numa"), "d3"),
        (("spread", "numa"), "d2"),
        (("binpack", "spread"), "d3"),
    ],
)
def test_the_first_word_that_tells_two_cards_apart_decides(policy: tuple[str, ...], first: str) -> None:  # 10.10
    assert order(policy) == first
    assert order(policy, numa_bind=True) == first


def test_equal_cards_are_taken_by_their_index_every_time() -> None:
    for _ in range(3):
        plan = fit(pod(app(CardAsk(card().family, 2, 0, mem_mib=1))), node(used("d2"), used("d0"), used("d1")))
        assert isinstance(plan, Plan)
        assert [part.card for part in plan.containers[0]] == ["d0", "d1"]
