"""Quota: what a pod spends, when that is too much, and in which words (scheduler.md 6, 10.5, 10.6; rows 8.7, 8.8)."""

from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan, Slice
from hami.model.quota import Limit, Measure, Quantum, Spent
from hami.model.refusal import Reason, Refusal
from hami.plan.exact import quota
from hami.plan.exact.charge import parts_of
from hami.plan.exact.fit import fit

from . import builders as make
from . import oracle
from .builders import NVIDIA, OTHER, app, card, init, node, pod, sidecar, used, want
from .migs import mig_card

MEM = Quantum("nvidia.com/gpumem", NVIDIA, Measure.MEMORY)
CORES = Quantum("nvidia.com/gpucores", NVIDIA, Measure.CORES)
CARDS = Quantum("nvidia.com/gpu", NVIDIA, Measure.CARDS)
DCU_MEM = Quantum("hygon.com/dcumem", OTHER, Measure.MEMORY, 2)


def ledger(*limits: Limit, mem: int = 8000, cards: int = 4) -> Ledger:
    made = Ledger()
    made.set_node(NodeRecord(NodeName("n"), tuple(card(f"d{index}", mem_mib=mem) for index in range(cards))))
    made.set_quota(QuotaRecord("ns", "q", limits))
    return made


def spend(on: Ledger, mem: int, cores: int = 0, namespace: str = "ns", uid: str = "old") -> None:
    spent = (Spent(NVIDIA, 1, mem, cores),)
    on.set_pod(PodRecord(PodRef(namespace, uid, PodUid(uid)), NodeName("elsewhere"), spent=spent))


def refused(on: Ledger, ask: Ask) -> Refusal | None:
    decision = on.decide(ask)
    assert on.recount() == []
    one = on.fit(ask, NodeName("n"))
    assert isinstance(one, Plan) == (decision.plan is not None), "one node is judged as all are"
    return None if decision.plan else decision.refusals["n"]


@pytest.mark.parametrize(
    ("containers", "mem", "cores", "cards"),
    [
        ((app(want(1000, cores=10)), app(want(500))), 1500, 10, 2),
        ((init(want(800)), init(want(700)), app(want(500))), 800, 0, 1),
        ((init(want(1500)), app(want(500)), app(want(700))), 1500, 0, 2),
        ((sidecar(want(300)), init(want(800)), app(want(500))), 1100, 0, 2),
        ((init(want(800)), sidecar(want(300)), app(want(500))), 800, 0, 2),
        ((app(want(5000, cards=2, cores=30)),), 10000, 60, 2),
        ((init(want(20000)), app(want(10000))), 20000, 0, 1),
        ((app(want(percent=50)),), 0, 0, 1),
    ],
)
def test_a_pod_spends_what_kubernetes_counts(
    containers: tuple[ContainerAsk, ...], mem: int, cores: int, cards: int
) -> None:
    assert quota.asked(pod(*containers)) == (Spent(NVIDIA, cards, mem, cores),)


def test_an_init_container_counts_until_it_is_done() -> None:
    """Whoever does not know, counts it."""
    large, small = (Slice(CardId("d0"), NVIDIA, mem, 10) for mem in (8000, 1000))
    parts = ((ContainerKind.INIT, (large,)), (ContainerKind.APP, (small,)))
    assert quota.spent(parts) == (Spent(NVIDIA, 1, 8000, 10),)
    assert quota.spent(parts, init_done=True) == (Spent(NVIDIA, 1, 1000, 10),)


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_what_is_asked_is_what_a_plan_spends_and_at_most_bounds_it(seed: int) -> None:
    random = Random(seed)
    ask, state = make.random_ask(random), make.random_node(random)
    plan = fit(ask, state)
    if not isinstance(plan, Plan):
        return
    spent = quota.spent(parts_of(ask, plan.containers))
    low, high = quota.asked(ask), quota.at_most(ask, 12, grown=False)
    if all(one.mem_mib is not None for container in ask.containers for one in container.cards):
        assert spent == low == high
    for least, got, most in zip(low, spent, high, strict=True):
        assert least.mem_mib <= got.mem_mib <= most.mem_mib
        assert least.cards == got.cards
        assert least.core_percent == got.core_percent


@pytest.mark.parametrize(
    ("ask", "limit", "said"),
    [
        (pod(app(want(100))), 2000, None),
        (pod(app(want(1024))), 2000, "used 1000, asked 1024, limit 2000"),
        (pod(app(want(1024, cards=2))), 2000, "asked 2048"),
        (pod(app(want(400, cards=2))), 2000, None),
        (pod(init(want(800)), init(want(800)), app(want(500))), 2000, None),
        (pod(init(want(1500)), app(want(500))), 2000, "asked 1500"),
        (pod(app(want(1))), 0, "limit 0"),
        (pod(app(want(percent=10))), 0, "asked 10 % of a card, limit 0"),
        (pod(app(want(100, family=OTHER))), 0, None),
    ],
)
def test_used_and_asked_stay_within_the_limit(ask: Ask, limit: int, said: str | None) -> None:
    on = ledger(Limit(MEM, limit))
    on.set_node(NodeRecord(NodeName("m"), (card("o0", family=OTHER),)))
    spend(on, 1000)
    decision = on.decide(ask)
    assert (decision.plan is None) == (said is not None)
    if said:
        refusal = decision.refusals["n"]
        assert (refusal.counts, refusal.total, refusal.cards) == (((Reason.QUOTA_NOT_FIT, 1),), 0, ())
        assert refusal.reason is Reason.QUOTA_NOT_FIT
        assert said in refusal.text
        assert refusal.text.startswith("ResourceQuotaNotFit: namespace ns: limits.nvidia.com/gpumem: ")


def test_cores_cards_and_memory_each_have_their_limit() -> None:
    assert refused(ledger(Limit(CORES, 50)), pod(app(want(1, cores=30, cards=2)))) is not None
    assert refused(ledger(Limit(CORES, 60)), pod(app(want(1, cores=30, cards=2)))) is None
    assert refused(ledger(Limit(CARDS, 1)), pod(app(want(1, cards=2)))) is not None
    assert refused(ledger(Limit(CARDS, 2), Limit(MEM, 1)), pod(app(want(1, cards=2)))) is not None


def test_a_limit_counts_the_resources_own_unit_and_only_its_family() -> None:
    on = ledger(Limit(DCU_MEM, 2000))
    on.set_node(NodeRecord(NodeName("n"), (card("o0", family=OTHER), card("d1"))))
    assert refused(on, pod(app(want(2000, family=OTHER)), app(want(4000)))) is None
    refusal = refused(on, pod(app(want(2400, family=OTHER))))
    assert refusal is not None
    assert "limits.hygon.com/dcumem: used 0, asked 1200, limit 1000" in refusal.text


def test_the_tightest_of_several_quotas_counts_and_what_is_gone_does_not() -> None:
    on = ledger(Limit(MEM, 8000))
    on.set_quota(QuotaRecord("ns", "tight", (Limit(MEM, 500),)))
    assert refused(on, pod(app(want(1000)))) is not None
    assert on.drop_quota("ns", "tight")
    assert not on.drop_quota("ns", "tight")
    assert refused(on, pod(app(want(1000)))) is None
    assert refused(on, pod(app(want(4000), name="a"), app(want(4001), name="b"))) is not None
    assert on.set_quota(QuotaRecord("ns", "q"))
    assert on.quotas.budgets("ns") == ()


def test_other_namespaces_are_none_of_its_business() -> None:
    on = ledger(Limit(MEM, 1000))
    spend(on, 1000, namespace="other")
    assert refused(on, pod(app(want(1000)))) is None
    assert on.decide(replace(pod(app(want(5000))), pod=PodRef("other", "p", PodUid("p")))).plan is not None


def test_a_held_slice_is_spent_and_not_counted_against_its_own_pod() -> None:
    on = ledger(Limit(MEM, 1000))
    mine, next_one = pod(app(want(800)), uid="a"), pod(app(want(300)), uid="b")
    plan = on.decide(mine).plan
    assert plan is not None
    on.reserve(mine, plan, 0.0, 10.0)
    assert refused(on, mine) is None
    assert refused(on, next_one) is not None
    assert on.expire(11.0)
    assert refused(on, next_one) is None


def test_a_percentage_is_judged_by_the_cards_it_gets() -> None:
    on = ledger(Limit(MEM, 5000))
    assert refused(on, pod(app(want(percent=50)))) is None
    assert refused(on, pod(app(want(percent=100)))) is not None, "default memory above quota (10.6)"
    on.set_node(NodeRecord(NodeName("small"), (card("s0", mem_mib=4000),)))
    decision = on.decide(pod(app(want(percent=100))))
    assert decision.plan is not None
    assert decision.plan.node == "small"
    assert decision.refusals["n"].text == (
        "ResourceQuotaNotFit: namespace ns: limits.nvidia.com/gpumem: used 0, asked 8000, limit 5000"
    )


def test_a_smaller_card_of_the_node_is_found_for_a_percentage() -> None:
    on = ledger()
    on.set_node(NodeRecord(NodeName("n"), (card("d0"), card("d1", mem_mib=4000))))
    on.set_quota(QuotaRecord("ns", "q", (Limit(MEM, 5000),)))
    plan = on.decide(pod(app(want(percent=100)), cards=("binpack",))).plan
    assert plan is not None
    assert plan.containers == ((Slice(CardId("d1"), NVIDIA, 4000, 0),),)


def test_where_nothing_can_be_too_much_no_node_is_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    on = ledger(Limit(MEM, 8000 * 4))
    seen: list[Ask] = []
    monkeypatch.setattr("hami.ledger.cluster.choose", lambda ask, *_: seen.append(ask))
    on.decide(pod(app(want(percent=100, cards=4))))
    on.decide(pod(app(want(percent=100, cards=4)), app(want(percent=1))))
    assert [len(ask.budgets) for ask in seen] == [0, 1]


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_a_bounded_search_finds_a_plan_whenever_there_is_one_within_the_quota(seed: int) -> None:
    random = Random(seed)
    state = node(*(used(f"d{number}", mem_mib=random.choice((4, 6, 10))) for number in range(random.randint(1, 4))))
    wants = [
        CardAsk(NVIDIA, random.choice((1, 1, 2)), 0, mem_percent=random.choice((50, 100)))
        for _ in range(random.choice((1, 2)))
    ]
    kinds = [random.choice((ContainerKind.APP, ContainerKind.INIT)), ContainerKind.APP][-len(wants) :]
    ask = pod(*(ContainerAsk("c", kind, (one,)) for kind, one in zip(kinds, wants, strict=True)))
    on = ledger(Limit(MEM, random.randrange(30)))
    bounded = quota.bounded(ask, on.quotas.budgets("ns"), grown=False)

    def cost(way: list[list[tuple[str, ...]]]) -> int:
        sizes = {one.card.id: one.card.mem_mib for one in state.cards}
        sums = [
            sum(sizes[CardId(name)] * (one.mem_percent or 0) // 100 for cards in taken for name in cards)
            for taken, one in zip(way, wants, strict=True)
        ]
        apps = sum(total for total, kind in zip(sums, kinds, strict=True) if kind is ContainerKind.APP)
        # an init container runs beside nothing: there is no sidecar here
        return max(apps, *(total for total, kind in zip(sums, kinds, strict=True) if kind is ContainerKind.INIT), 0)

    limit = on.quotas.budgets("ns")[0].most
    due = limit > 0 and any(cost(way) <= limit for way in oracle.ways(ask, state))
    assert isinstance(fit(bounded, state), Plan) == due


def test_an_instance_that_is_larger_than_what_was_asked_counts_as_large_as_it_is() -> None:
    """5000 MiB would be within 8000, the 2g.10gb that serves them is not; a 1g.5gb is."""
    on = Ledger()
    on.set_node(NodeRecord(NodeName("n"), (mig_card("d0"),)))
    on.set_quota(QuotaRecord("ns", "q", (Limit(MEM, 8000),)))
    refusal = refused(on, pod(app(want(5000))))
    assert refusal is not None
    assert refusal.text == "ResourceQuotaNotFit: namespace ns: limits.nvidia.com/gpumem: used 0, asked 9856, limit 8000"
    assert refused(on, pod(app(want(4800)))) is None
    on.set_node(NodeRecord(NodeName("n"), (mig_card("d0"), card("d1", mem_mib=5000))))
    assert refused(on, pod(app(want(5000)))) is None, "a card that is not in MIG mode gives what was asked"


def test_the_cores_of_an_instance_count_as_many_as_it_has() -> None:
    on = Ledger()
    on.set_node(NodeRecord(NodeName("n"), (mig_card("d0"),)))
    on.set_quota(QuotaRecord("ns", "q", (Limit(CORES, 20),)))
    refusal = refused(on, pod(app(want(8000, cores=10))))
    assert refusal is not None
    assert "limits.nvidia.com/gpucores: used 0, asked 29, limit 20" in refusal.text
    assert refused(on, pod(app(want(4000, cores=10)))) is None


def test_a_limit_of_nothing_names_the_largest_percentage_that_was_asked() -> None:
    refusal = refused(ledger(Limit(MEM, 0)), pod(app(want(percent=10)), app(want(percent=30))))
    assert refusal is not None
    assert refusal.text == "ResourceQuotaNotFit: namespace ns: limits.nvidia.com/gpumem: asked 30 % of a card, limit 0"
    assert refused(ledger(Limit(CORES, 0)), pod(app(want(percent=30)))) is None
    assert refused(ledger(Limit(MEM, 0)), pod(app(want(percent=0)))) is None
    assert refused(ledger(Limit(MEM, 0)), pod(app(want(0)))) is None, "no MiB are within it, too"


def test_a_limit_of_one_mib_lets_through_who_asks_no_more_and_none_at_all_asks_nothing_of_other_families() -> None:
    one = ledger(Limit(MEM, 1), mem=100)
    assert refused(one, pod(app(want(percent=1)))) is None
    assert refused(one, pod(app(want(percent=2)))) is not None
    assert refused(ledger(Limit(DCU_MEM, 0)), pod(app(want(percent=50)))) is None


def test_a_percentage_is_judged_by_its_cards_also_on_nodes_that_are_not_the_best() -> None:
    on = Ledger()
    for name, mem in (("a", 4000), ("b", 8000), ("c", 4000), ("d", 8000)):
        on.set_node(NodeRecord(NodeName(name), (card(f"{name}0", mem_mib=mem),)))
    on.set_quota(QuotaRecord("ns", "q", (Limit(MEM, 3000),)))
    decision = on.decide(pod(app(want(percent=50))))
    assert decision.feasible == ["a", "c"]
    assert {one.text for one in decision.refusals.values()} == {
        "ResourceQuotaNotFit: namespace ns: limits.nvidia.com/gpumem: used 0, asked 4000, limit 3000"
    }
