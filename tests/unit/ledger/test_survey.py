"""The cluster explained: it tells the decision's own story, and its nearest fix really makes the ask fit."""

from random import Random

from hypothesis import given, settings
from msgspec.structs import replace
from tests.unit.plan import builders as make
from tests.unit.plan.builders import app, card, pod, want
from tests.unit.plan.followed import applied

from hami.ledger.cluster import Ledger
from hami.ledger.filed import rebuilt
from hami.ledger.records import NodeRecord, PodRecord
from hami.ledger.survey import Refused, Survey, grouped, residents_on, said, survey, with_asks
from hami.model.ask import Ask, PodRef
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.model.refusal import Reason, Refusal
from hami.plan.advice.fixes import Change, Fix
from hami.plan.exact.fit import fit
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
    efforts = {fix.text: round(fix.effort, 3) for fix in finish(survey(ledger, pod(app(want(8000))))).fixes if fix.pod}
    assert efforts == {
        "move pod ns/pod-on-n1 to n3": 1 + 3000 / 8000,
        "end pod ns/pod-on-n2: no other node has room for it": 2 + 7000 / 8000,
    }
    assert "end pod ns/pod-on-n2: no other node has room for it" in texts


def test_once_it_is_known_what_a_pod_in_the_way_asks_only_its_move_is_told_anew() -> None:
    ledger = cluster()
    ledger.set_node(NodeRecord(NodeName("n3"), (card("d3", mem_mib=4000, model="V100"),)))
    found = finish(survey(ledger, pod(app(want(8000)))))
    moves = {fix.text for fix in found.fixes if fix.change is Change.MOVE_POD}
    assert moves == {"move pod ns/pod-on-n1 to n3"}

    def ask_of(ref: PodRef) -> Ask:
        return replace(pod(app(want(3000, use_types=("A100",)))), pod=ref)

    known = finish(with_asks(ledger, found, ask_of))
    assert {fix.text for fix in found.fixes} - {fix.text for fix in known.fixes} == moves
    assert {fix.text for fix in known.fixes} - {fix.text for fix in found.fixes} == {
        "end pod ns/pod-on-n1: no other node has room for it"
    }
    assert list(known.fixes) == sorted(known.fixes)
    assert finish(with_asks(ledger, found, lambda _: None)) == found


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


def test_reasons_are_told_the_most_frequent_first_and_named_in_order() -> None:
    def out(text: str) -> Refusal:
        return Refusal(((Reason.UNREGISTERED, 1),), 0, text)

    said = {f"n{number:02}": out("many") for number in reversed(range(12))} | {
        "z": out("b"),
        "a": out("a"),
        "y": out("b"),
    }
    found = finish(grouped(said))
    assert [(one.text, one.nodes) for one in found] == [
        ("node unregistered: many", 12), ("node unregistered: b", 2), ("node unregistered: a", 1)
    ]  # fmt: skip
    assert found[0].names == tuple(f"n{number:02}" for number in range(10))
    assert found[1].names == ("y", "z")
    alike = finish(grouped({"first": out("b"), "second": out("a")}))
    assert [one.text for one in alike] == ["node unregistered: a", "node unregistered: b"], "of as many by their words"


def test_each_container_is_told_in_words() -> None:
    ask = pod(
        app(want(10000, cores=40, cards=2), name="train"),
        app(name="log"),
        app(want(percent=50, use_types=("A100", "H100")), name="serve"),
    )
    assert said(ask) == ("train: 2 x 10000 MiB, 40 %", "serve: 1 x 50 % memory of A100,H100")


def test_only_so_many_nodes_are_looked_at_closely_and_so_many_changes_told() -> None:
    ledger = Ledger()
    for number in range(30):
        ledger.set_node(NodeRecord(NodeName(f"n{number:02}"), (card(f"d{number}", mem_mib=8000 + number),)))
    few = finish(survey(ledger, pod(app(want(9000))), closely=3))
    assert [one.node for one in few.nodes] == ["n29", "n28", "n27"], "the nearest"
    assert len(few.fixes) == 3
    assert few.nearest is not None
    assert (few.nearest.node, few.nearest.value) == ("n29", 8029)
    many = finish(survey(ledger, pod(app(want(9000))), closely=30))
    assert (len(many.nodes), len(many.fixes)) == (30, 10)
    assert len(finish(survey(ledger, pod(app(want(100))), closely=30)).nodes) == 30
    fits = finish(survey(ledger, pod(app(want(100))), closely=5))
    assert (len(fits.nodes), fits.feasible, fits.fixes, fits.nearest) == (5, 30, (), None)
    assert fits.plan is not None
    assert fits.nodes[0].node == fits.plan.node
    assert [one.node for one in fits.nodes[1:]] == [
        name for name in ("n00", "n01", "n02", "n03", "n04") if name != fits.plan.node
    ][:4]


def test_a_bound_pod_whose_node_is_gone_is_told_so() -> None:
    ledger = cluster()
    ledger.drop_node(N2)
    ask = pod(app(want(7000, cores=30)), uid="on-n2")
    found = finish(survey(ledger, ask))
    assert (found.bound, found.fits, found.offered, found.feasible, found.nodes) == (N2, False, 0, 0, ())
    ledger.set_node(NodeRecord(N2, (card("d2", mem_mib=6000),)))
    found = finish(survey(ledger, ask))
    assert (found.fits, found.offered, found.feasible) == (False, 1, 0)
    assert found.refused == (Refused("1/1 CardInsufficientMemory: missing 1000 MiB on the best card", 1, (N2,)),)
    assert found.fixes == found.nodes[0].fixes != ()


def test_who_cannot_be_read_or_holds_nothing_is_no_resident() -> None:
    ledger = cluster()
    ledger.set_pod(PodRecord(PodRef("ns", "odd", PodUid("odd")), N1, problem="unreadable"))
    ledger.set_pod(PodRecord(PodRef("ns", "idle", PodUid("idle")), N1))
    own = pod(app(want(1)), uid="known")
    found = residents_on(ledger, N1, lambda ref: own if ref.uid == "on-n1" else None)
    assert [(one.pod.uid, one.node, one.ask) for one in found] == [("on-n1", N1, own)]
    (alone,) = residents_on(ledger, N2, lambda _: None)
    assert alone.ask.containers[0].cards[0].mem_mib == 7000
