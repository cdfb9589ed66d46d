"""What a record means that says nothing of a thing."""

from tests.unit.plan.builders import app, node, pod, used, want

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import PodRef
from hami.model.ids import NodeName, PodUid
from hami.plan.exact.preempt import Holder, victims

N = NodeName("n")


def test_a_pod_without_a_priority_class_has_that_of_kubernetes() -> None:
    assert PodRecord(PodRef("ns", "p", PodUid("p")), N).priority == 0


def test_a_node_without_more_has_no_cards_and_no_problem() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(N))
    state = ledger.node(N)
    assert state is not None
    assert (state.cards, state.problem, dict(state.links)) == ((), None, {})
    assert victims(pod(app(want(1))), node(used()), [Holder(PodRef("ns", "p", PodUid("p")), (), 0)]) == ()
