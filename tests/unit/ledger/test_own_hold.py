"""What a pod holds already is free for itself, once and no more than it is."""

import pytest
from msgspec.structs import replace
from tests.unit.plan.builders import app, card, pod, want
from tests.unit.plan.migs import mig_card

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.ledger.survey import survey
from hami.model.errors import Bug
from hami.model.ids import CardId, NodeName
from hami.model.plan import Charge, Plan
from hami.model.refusal import Refusal
from hami.plan.advice.fixes import Change
from hami.plan.steps import finish

N = NodeName("n")


def holding() -> Ledger:
    """A card of 8000 MiB: 3000 held for the pod `own`, 2000 for another."""
    ledger = Ledger()
    ledger.set_node(NodeRecord(N, (card("d0"),)))
    for uid, mem in (("own", 3000), ("other", 2000)):
        ask = pod(app(want(mem)), uid=uid)
        plan = ledger.decide(ask).plan
        assert plan is not None
        ledger.reserve(ask, plan, 0, 30)
    return ledger


@pytest.mark.parametrize(("mem", "fits"), [(6000, True), (6001, False), (8000, False)])
def test_a_pod_that_asks_again_may_have_what_is_free_and_its_own(mem: int, fits: bool) -> None:
    ledger, ask = holding(), pod(app(want(mem)), uid="own")
    assert (ledger.decide(ask).plan is not None) == fits
    assert isinstance(ledger.fit(ask, N), Plan if fits else Refusal)
    told = finish(survey(ledger, ask))
    assert told.fits == fits
    if not fits:
        assert {fix.value for fix in told.fixes if fix.change is Change.LESS_MEMORY} == {6000}
        verdict = told.nodes[0].cards[0]
        assert (verdict.needed, verdict.had) == (mem, 6000)


def test_a_plan_for_more_than_that_is_a_bug() -> None:
    ledger, ask = holding(), pod(app(want(6000)), uid="own")
    plan = ledger.decide(ask).plan
    assert plan is not None
    with pytest.raises(Bug, match="takes more of card d0 on n than is left"):
        ledger.reserve(ask, replace(plan, charges=(Charge(CardId("d0"), 1, 6001, 0),)), 0, 30)
    ledger.reserve(ask, plan, 0, 30)
    assert ledger.recount() == []


def test_a_plan_for_an_instance_that_another_has_is_a_bug() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(N, (mig_card("d0"),)))
    first, second = (pod(app(want(4000)), uid=uid) for uid in ("a", "b"))
    plan = ledger.decide(first).plan
    assert plan is not None
    ledger.reserve(first, plan, 0, 30)
    again = ledger.decide(second).plan
    assert again is not None
    words = "the plan of ns/pod-b has no places of its own on card d0 of n$"
    with pytest.raises(Bug, match=words):
        ledger.reserve(second, replace(again, charges=plan.charges), 0, 30)


def test_a_change_that_helps_on_several_nodes_is_told_once_and_hides_no_other() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(NodeName("a"), (card("d0", mem_mib=4000),)))
    ledger.set_node(NodeRecord(NodeName("b"), (card("d1", mem_mib=4000), card("d2", mem_mib=1000))))
    ledger.set_node(NodeRecord(NodeName("c"), (card("d3", mem_mib=9000),), frozenset({CardId("d3")})))
    told = finish(survey(ledger, pod(app(want(5000)))))
    assert [(fix.change, fix.value, fix.card) for fix in told.fixes] == [
        (Change.LESS_MEMORY, 4000, None),
        (Change.UNCORDON, None, CardId("d3")),
    ]
