"""The cluster explained: it tells the decision's own story, and its nearest fix really makes the ask fit."""

from random import Random

from hypothesis import given, settings
from msgspec.structs import replace
from tests.unit.plan import builders as make
from tests.unit.plan.builders import app, card, pod, want

from hami.ledger.cluster import Ledger
from hami.ledger.filed import rebuilt
from hami.ledger.records import NodeRecord, PodRecord
from hami.ledger.survey import Survey, survey
from hami.model.ask import Ask, PodRef
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.plan.fit import fit
from hami.plan.fixes import Change, Fix, applied
from hami.plan.steps import finish
from hami.wire.snapshot import AskEntry, NodeEntry, PodEntry, Snapshot, card_entry

N1, N2 = NodeName("n1"), NodeName("n2")


def random_ledger(random: Random) -> Ledger:
    """Some nodes; what is taken is held by one pod a card, that nothing is known of but its size."""
    ledger = Ledger()
    for number in range(random.choice((1, 2, 4))):
        name = NodeName(f"n{number}")
        state = make.random_node(random, name)
        cards = tuple(replace(one.card, id=f"{name}-{one.card.id}") for one in state.cards)
        cordoned = frozenset(new.id for one, new in zip(state.cards, cards, strict=True) if one.cordoned)
        ledger.set_node(NodeRecord(name, cards, cordoned, state.problem))
        for one, own in zip(state.cards, cards, strict=True):
            if one.used_slots:
                ref = PodRef("ns", own.id, PodUid(own.id))
                ledger.set_pod(PodRecord(ref, name, charges=(Charge(own.id, *one.use),)))
    return ledger


@settings(max_examples=150, deadline=None)
@given(make.SEEDS)
def test_a_survey_agrees_with_the_decision_and_its_fixes_fix(seed: int) -> None:
    random = Random(seed)
    ledger, ask = random_ledger(random), make.random_ask(random)
    before = list(ledger.nodes())
    decision, found = ledger.decide(ask), finish(survey(ledger, ask))
    assert list(ledger.nodes()) == before
    assert ledger.recount() == []
    if ask.empty:
        return
    assert found.plan == decision.plan
    assert found.fits == (decision.plan is not None)
    assert (found.feasible, found.offered) == (len(decision.feasible), len(list(ledger.nodes())))
    said = {name: group.text for group in found.refused for name in group.names}
    assert said == decision.reasons()
    for one in found.nodes:
        result = ledger.fit(ask, one.node)
        assert one.plan == (result if isinstance(result, Plan) else None)
    for fix in found.fixes:
        assert after(random_ledger(Random(seed)), fix, ask), fix


def after(ledger: Ledger, fix: Fix, ask: Ask) -> bool:
    """Whether the ask fits on the node named, once somebody did what the fix says."""
    assert fix.node is not None
    if fix.change is Change.UNCORDON:
        cards = tuple(one.card for one in ledger.node(fix.node).cards)  # type: ignore[union-attr]
        cordoned = frozenset(
            one.card.id
            for one in ledger.node(fix.node).cards
            if one.cordoned and one.card.id != fix.card  # type: ignore[union-attr]
        )
        ledger.set_node(NodeRecord(fix.node, cards, cordoned))
    elif fix.pod is not None:
        ledger.drop_pod(fix.pod.uid)
    state = ledger.node(fix.node)
    return state is not None and isinstance(fit(applied(fix, ask), state), Plan)


def cluster() -> Ledger:
    """Two nodes of one card of 8000 MiB; n1 has 3000 taken, n2 7000, each by one pod."""
    ledger = Ledger()
    for name, own, taken in ((N1, "d1", 3000), (N2, "d2", 7000)):
        ledger.set_node(NodeRecord(name, (card(own),)))
        placed = ledger.fit(pod(app(want(taken, cores=30)), uid=f"on-{name}"), name)
        assert isinstance(placed, Plan)
        ledger.set_pod(PodRecord(placed.pod, name, placed.containers, placed.charges))
    return ledger


def test_the_nearest_fix_over_all_nodes_comes_first_with_its_node() -> None:
    found = finish(survey(cluster(), pod(app(want(6000)))))
    assert found.nearest == Fix(
        Change.LESS_MEMORY, "ask at most 5000 MiB a card", 5000, effort=1 - 5000 / 6000, node=N1
    )
    assert [(group.text, group.names) for group in found.refused] == [
        ("1/1 CardInsufficientMemory: missing 1000 MiB on the best card", ("n1",)),
        ("1/1 CardInsufficientMemory: missing 5000 MiB on the best card", ("n2",)),
    ]


def test_a_pod_in_the_way_moves_where_there_is_room_and_ends_where_there_is_none() -> None:
    ledger = cluster()
    texts = [fix.text for fix in finish(survey(ledger, pod(app(want(8000))))).fixes]
    assert "end pod ns/pod-on-n1: no other node has room for it" in texts
    ledger.set_node(NodeRecord(NodeName("n3"), (card("d3", mem_mib=4000),)))
    texts = [fix.text for fix in finish(survey(ledger, pod(app(want(8000))))).fixes]
    assert "move pod ns/pod-on-n1 to n3" in texts
    assert "end pod ns/pod-on-n2: no other node has room for it" in texts


def test_the_chosen_node_is_explained_first_with_its_score() -> None:
    found = finish(survey(cluster(), pod(app(want(500)))))
    assert (found.fits, found.feasible, [one.node for one in found.nodes]) == (True, 2, [N2, N1])
    assert found.plan is not None
    assert found.nodes[0].plan == found.plan


def test_a_slice_held_for_the_pod_itself_is_no_obstacle() -> None:
    ledger, ask = cluster(), pod(app(want(5000)))
    plan = ledger.fit(ask, N1)
    assert isinstance(plan, Plan)
    ledger.reserve(ask, plan, 0.0, 30.0)
    found = finish(survey(ledger, ask))
    assert found.plan is not None
    assert found.plan.node == N1
    assert (found.nodes[0].node, found.nodes[0].refusal, found.nodes[0].cards[0].reason) == (N1, None, None)


def test_a_bound_pod_is_explained_on_its_node_as_if_it_were_not_there() -> None:
    ask = pod(app(want(7000, cores=30)), uid="on-n2")
    found = finish(survey(cluster(), ask))
    assert (found.bound, found.fits, len(found.nodes)) == (N2, True, 1)


def test_of_many_nodes_that_are_alike_one_is_looked_at() -> None:
    ledger = Ledger()
    for number in range(50):
        ledger.set_node(NodeRecord(NodeName(f"n{number:02}"), (card(f"d{number}", index=0),)))
    found = finish(survey(ledger, pod(app(want(9000)))))
    assert (len(found.nodes), found.offered) == (1, 50)
    assert (found.refused[0].nodes, len(found.refused[0].names)) == (50, 10)


def test_a_snapshot_file_is_decided_on_as_the_cluster_was() -> None:
    ledger = cluster()
    nodes = tuple(
        NodeEntry(one.name, tuple(card_entry(state.card, state.cordoned) for state in one.cards))
        for one in ledger.nodes()
    )
    ask = AskEntry.of(pod(app(want(3000, cores=30))))
    pods = tuple(
        PodEntry(one.ref.namespace, one.ref.name, one.ref.uid, ask, one.node, one.containers)
        for one in ledger.pods().values()
    )
    waiting = PodEntry("ns", "w", PodUid("w"), AskEntry.of(pod(app(want(6000)))))
    filed = rebuilt(Snapshot(0.0, nodes, (*pods, waiting)))
    mine = pod(app(want(6000)), uid="w")
    there, here = finish(survey(filed.ledger, mine)), finish(survey(ledger, mine))
    assert without_generation(there) == without_generation(here)
    assert filed.waiting == (waiting,)
    assert filed.ask_of(PodRef("ns", "w", PodUid("w"))) == waiting.ask.ask(waiting.ref)  # type: ignore[union-attr]


def without_generation(found: Survey) -> Survey:
    return replace(found, plan=None, nodes=tuple(replace(one, plan=None) for one in found.nodes))
