"""The ledger event by event."""

import pytest
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.card import Card
from hami.model.errors import Bug, Conflict, Retry, StaleGeneration
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, Plan, Slice
from hami.model.reservation import ReservationState
from hami.plan.exact.refuse import UNKNOWN_NODE

NVIDIA = Family("NVIDIA")
N1, N2 = NodeName("n1"), NodeName("n2")


def card(name: str, index: int = 0, **fields: object) -> Card:
    given = {"slots": 10, "mem_mib": 8000, "core_percent": 100} | fields
    return Card(id=CardId(name), family=NVIDIA, model="A100", index=index, **given)


def node(name: NodeName = N1, *cards: Card, **fields: object) -> NodeRecord:
    return NodeRecord(name, cards or (card(f"{name}-a"),), **fields)


def ask(uid: str = "u", mem: int = 1000, cores: int = 0) -> Ask:
    wanted = CardAsk(NVIDIA, 1, cores, mem_mib=mem)
    return Ask(PodRef("ns", uid, PodUid(uid)), (ContainerAsk("c", ContainerKind.APP, (wanted,)),))


def bound(uid: str, name: NodeName, on: str, mem: int, **fields: object) -> PodRecord:
    parts = ((Slice(CardId(on), NVIDIA, mem, 0),),)
    return PodRecord(PodRef("ns", uid, PodUid(uid)), name, parts, (Charge(CardId(on), 1, mem, 0),), **fields)


def ledger(*records: NodeRecord | PodRecord) -> Ledger:
    made = Ledger()
    for record in records:
        made.set_node(record) if isinstance(record, NodeRecord) else made.set_pod(record)
    return made


def taken(of: Ledger, name: NodeName = N1) -> dict[str, int]:
    """MiB taken by card; the proof that nothing drifted comes with it."""
    assert of.recount() == []
    state = of.node(name)
    return {one.card.id: one.used_mem_mib for one in state.cards} if state else {}


def plan(of: Ledger, asked: Ask, names: list[str] | None = None) -> Plan:
    found = of.decide(asked, names).plan
    assert found is not None
    return found


def test_a_reservation_holds_its_slice_until_it_expires() -> None:
    one = ledger(node())
    hold = one.reserve(ask(mem=5000), plan(one, ask(mem=5000)), now=0, ttl=10)
    assert hold.state is ReservationState.HELD
    assert taken(one) == {"n1-a": 5000}
    assert one.decide(ask("other", mem=5000)).plan is None
    assert one.expire(9.9) == []
    assert one.expire(10) == [hold]
    assert taken(one) == {"n1-a": 0}
    assert one.reservation(PodUid("u")) is None


def test_a_pod_decided_again_does_not_stand_in_its_own_way_nor_count_twice() -> None:
    one = ledger(node())
    one.reserve(ask(mem=5000), plan(one, ask(mem=5000)), now=0, ttl=10)
    again = plan(one, ask(mem=5000))
    assert one.fit(ask(mem=5000), N1) == again
    assert taken(one) == {"n1-a": 5000}
    one.reserve(ask(mem=5000), again, now=1, ttl=10)
    assert taken(one) == {"n1-a": 5000}


def test_a_hold_moves_to_the_node_that_was_chosen_instead() -> None:
    one = ledger(node(N1), node(N2))
    one.reserve(ask(), plan(one, ask(), ["n1"]), now=0, ttl=10)
    other = one.fit(ask(), N2)
    assert isinstance(other, Plan)
    one.reserve(ask(), other, now=0, ttl=10)
    assert (taken(one, N1), taken(one, N2)) == ({"n1-a": 0}, {"n2-a": 1000})


def test_a_plan_on_a_node_that_has_changed_since_is_stale() -> None:
    one = ledger(node(N1), node(N2))
    first = plan(one, ask("first"), ["n1"])
    one.set_pod(bound("elsewhere", N2, "n2-a", 1))
    one.reserve(ask("first"), first, now=0, ttl=10)
    late = plan(one, ask("late"), ["n1"])
    one.set_pod(bound("between", N1, "n1-a", 1))
    with pytest.raises(StaleGeneration) as fault:
        one.reserve(ask("late"), late, now=0, ttl=10)
    assert fault.value.retry is Retry.SOON
    assert one.reservation(PodUid("late")) is None
    one.drop_node(N1)
    with pytest.raises(StaleGeneration):
        one.reserve(ask("late"), late, now=0, ttl=10)


def test_a_node_that_went_and_came_back_is_another_generation() -> None:
    one = ledger(node())
    old = plan(one, ask())
    one.drop_node(N1)
    one.set_node(node())
    with pytest.raises(StaleGeneration):
        one.reserve(ask(), old, now=0, ttl=10)


def test_no_reservation_takes_more_than_a_card_has() -> None:
    one = ledger(node())
    made = replace(plan(one, ask()), charges=(Charge(CardId("n1-a"), 1, 8001, 0),))
    with pytest.raises(Bug):
        one.reserve(ask(), made, now=0, ttl=10)
    assert taken(one) == {"n1-a": 0}


def test_what_is_being_bound_neither_expires_nor_is_planned_anew() -> None:
    one = ledger(node(N1), node(N2))
    one.reserve(ask(mem=5000), plan(one, ask(mem=5000)), now=0, ttl=10)
    hold = one.binding(PodUid("u"), now=5, ttl=60)
    assert (hold.state, hold.expires_at) == (ReservationState.BINDING, 65)
    assert one.expire(100) == []
    assert one.overdue(64) == []
    assert one.overdue(65) == [hold]
    assert one.decide(ask(mem=5000)).feasible == ["n2"]
    with pytest.raises(Conflict, match="being bound to n1"):
        one.reserve(ask(mem=5000), plan(one, ask(mem=5000)), now=6, ttl=10)
    assert one.release(PodUid("u")) == hold
    assert taken(one) == {"n1-a": 0}


def test_nothing_can_be_bound_that_is_not_held() -> None:
    with pytest.raises(Conflict, match="expired"):
        ledger(node()).binding(PodUid("u"), now=0, ttl=1)
    assert ledger(node()).release(PodUid("u")) is None


def test_the_durable_record_takes_the_place_of_the_reservation() -> None:
    one = ledger(node(N1), node(N2))
    made = plan(one, ask(mem=5000), ["n1"])
    one.reserve(ask(mem=5000), made, now=0, ttl=10)
    one.binding(PodUid("u"), now=0, ttl=10)
    state = one.node(N1)
    one.set_pod(PodRecord(made.pod, N1, made.containers, made.charges))
    assert one.node(N1) is state  # nothing changed on the cards, so plans made meanwhile stay good
    assert one.reservation(PodUid("u")) is None
    assert (one.expire(99), one.overdue(99)) == ([], [])
    assert taken(one) == {"n1-a": 5000}
    with pytest.raises(Conflict, match="already bound to n1"):
        one.reserve(ask(mem=1), plan(one, ask(mem=1)), now=0, ttl=10)


def test_a_pod_bound_elsewhere_than_reserved_is_counted_where_it_is() -> None:
    one = ledger(node(N1), node(N2))
    one.reserve(ask(mem=5000), plan(one, ask(mem=5000), ["n1"]), now=0, ttl=10)
    one.set_pod(bound("u", N2, "n2-a", 5000))
    assert (taken(one, N1), taken(one, N2)) == ({"n1-a": 0}, {"n2-a": 5000})


def test_a_pod_whose_record_names_another_node_now_moves_there() -> None:
    one = ledger(node(N1), node(N2), bound("u", N1, "n1-a", 5000))
    one.set_pod(bound("u", N2, "n2-a", 5000))
    assert (taken(one, N1), taken(one, N2)) == ({"n1-a": 0}, {"n2-a": 5000})


def test_init_containers_that_are_done_give_their_share_back_once() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 5000))
    done = bound("u", N1, "n1-a", 2000)
    assert one.set_pod(done)
    assert not one.set_pod(done)
    assert taken(one) == {"n1-a": 2000}


def test_a_finished_pod_gives_everything_back_once() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 5000))
    assert one.drop_pod(PodUid("u"))
    assert not one.drop_pod(PodUid("u"))
    assert taken(one) == {"n1-a": 0}


def test_a_pending_pod_that_is_deleted_gives_its_reservation_back() -> None:
    one = ledger(node())
    one.reserve(ask(), plan(one, ask()), now=0, ttl=10)
    assert one.drop_pod(PodUid("u"))
    assert taken(one) == {"n1-a": 0}


def test_pods_of_a_node_that_went_are_charged_again_when_it_returns() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 5000))
    one.reserve(ask("held"), plan(one, ask("held")), now=0, ttl=10)
    one.drop_node(N1)
    assert one.node(N1) is None
    assert one.decide(ask("x"), ["n1"]).reasons() == {"n1": "node unregistered"}
    one.set_node(node())
    assert taken(one) == {"n1-a": 6000}


def test_a_pod_known_before_its_node_is_charged_when_the_node_appears() -> None:
    assert taken(ledger(bound("u", N1, "n1-a", 5000), node())) == {"n1-a": 5000}


def test_a_slice_on_an_unknown_card_waits_for_the_card_and_disturbs_no_other() -> None:
    one = ledger(node(N1, card("n1-a")), bound("u", N1, "n1-b", 5000))
    assert taken(one) == {"n1-a": 0}
    one.set_node(node(N1, card("n1-a"), card("n1-b", 1)))
    assert taken(one) == {"n1-a": 0, "n1-b": 5000}
    one.set_node(node(N1, card("n1-a")))
    assert taken(one) == {"n1-a": 0}


def test_a_card_that_shrinks_under_its_pods_takes_no_more() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 5000))
    one.set_node(node(N1, card("n1-a", mem_mib=4000)))
    assert one.decide(ask(mem=0)).plan is None
    assert taken(one) == {"n1-a": 5000}


def test_a_pod_whose_record_cannot_be_read_closes_its_node_and_says_which_it_is() -> None:
    one = ledger(node(), node(N2))
    broken = PodRecord(PodRef("team", "odd", PodUid("odd")), N1, problem="$.annotations: 3 of 4 fields")
    one.set_pod(broken)
    assert one.decide(ask()).reasons() == {"n1": "node unregistered: pod team/odd: $.annotations: 3 of 4 fields"}
    assert one.decide(ask()).feasible == ["n2"]
    one.set_pod(replace(broken, problem=None))
    assert one.decide(ask()).feasible == ["n1", "n2"]
    one.set_pod(broken)
    one.drop_pod(PodUid("odd"))
    assert one.decide(ask()).feasible == ["n1", "n2"]
    assert one.recount() == []


def test_a_card_registered_twice_closes_the_node() -> None:
    one = ledger(node(N1, card("same"), card("same", 1)))
    assert one.decide(ask()).reasons() == {"n1": "node unregistered: card same is registered twice on the node"}


def test_cordon_health_and_problems_count_at_once() -> None:
    one = ledger(node())
    one.set_node(node(cordoned=frozenset({"n1-a", "unknown"})))
    assert one.decide(ask()).reasons() == {"n1": "1/1 CardCordoned"}
    one.set_node(node(N1, card("n1-a", healthy=False)))
    assert one.decide(ask()).reasons() == {"n1": "1/1 CardNotHealth"}
    one.set_node(node(problem="handshake timed out"))
    assert one.decide(ask()).reasons() == {"n1": "node unregistered: handshake timed out"}
    one.set_node(node())
    assert one.decide(ask()).feasible == ["n1"]


def test_two_nodes_that_claim_the_same_card_are_kept_apart() -> None:
    one = ledger(node(N1, card("same")), node(N2, card("same")), bound("u", N1, "same", 8000))
    assert one.decide(ask()).feasible == ["n2"]
    assert taken(one, N2) == {"same": 0}


def test_cards_are_in_order_of_their_index() -> None:
    one = ledger(node(N1, card("b", 1), card("a", 0)))
    assert list(taken(one)) == ["a", "b"]


def test_the_view_shows_who_is_where() -> None:
    one = ledger(node(N2), node(N1), bound("u2", N1, "n1-a", 1), bound("u1", N1, "n1-a", 1), bound("u3", N2, "gone", 1))
    one.reserve(ask("held"), plan(one, ask("held"), ["n2"]), now=0, ttl=10)
    one.set_pod(bound("lost", NodeName("n0"), "x", 1))
    view = one.view()
    assert [(each.name, [pod.ref.uid for pod in each.pods], len(each.reservations)) for each in view.nodes] == [
        ("n0", ["lost"], 0),
        ("n1", ["u1", "u2"], 0),
        ("n2", ["u3"], 1),
    ]
    assert [each.state is None for each in view.nodes] == [True, False, False]
    assert (view.pods, view.reservations) == (4, 1)
    assert [record.ref.uid for record in one.pods_on(N1)] == ["u1", "u2"]
    assert one.pods_on(NodeName("never")) == []


def test_a_recount_finds_every_kind_of_drift() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 5000))
    one._index.columns.free_mem[0, 0] += 1
    assert "column free_mem" in "".join(one.recount())
    one._index.columns.free_mem[0, 0] -= 1
    one._index.columns.node_score[0] += 1
    assert "score" in "".join(one.recount())
    one._index.columns.node_score[0] -= 1
    one._accounts[N1].holders[PodUid("u")] = ()
    assert "records say" in "".join(one.recount())
    assert "its records make" in "".join(one.recount())
    one._accounts[N1].holders[PodUid("u")] = one._pods[PodUid("u")].charges
    assert one.recount() == []


def test_each_drift_is_a_sentence_that_names_where_it_is() -> None:
    one = ledger(node(), node(N2), bound("u", N1, "n1-a", 5000))
    hold = one.reserve(ask("held"), plan(one, ask("held"), ["n2"]), now=0, ttl=10)
    one._pods[PodUid("held")] = bound("held", N2, "n2-a", 1000)
    assert "pod held is both bound and reserved" in one.recount()
    del one._pods[PodUid("held")]
    assert one.recount() == []
    account = one._accounts.pop(N2)
    assert "node n2 has a row and no account" in one.recount()
    assert any(said.startswith("node n2: holders are {}, records say {'held': ") for said in one.recount())
    one._accounts[N2] = account
    index = one._index
    index._states[index.rows["n1"]], index._states[index.rows["n2"]] = (
        index._states[index.rows["n2"]],
        index._states[index.rows["n1"]],
    )
    assert any(said.endswith("belongs to n1 and holds n2") for said in one.recount())
    index._states.reverse()
    assert one.recount() == []
    index.columns.usable[0] = False
    assert [said.partition(":")[0] for said in one.recount()] == ["node n1"]
    index.columns.usable[0] = True
    for cell in ("kind", "standing", "room", "numa", "core", "free_core", "free_slots", "mem"):
        getattr(index.columns, cell)[0, 0] += 1
        assert any(f"column {cell} is " in said for said in one.recount()), cell
        getattr(index.columns, cell)[0, 0] -= 1
    index.columns.standing[5, 0] = 0
    assert any("column standing" in said for said in one.recount()), "a card where there is none"
    index.columns.standing[5, 0] = index.columns.standing[4, 0]
    index.columns.kind[5, 0] = 1
    assert any("column kind" in said for said in one.recount())
    assert hold.plan.node == N2


def test_what_stands_where_there_is_no_card_does_not_matter() -> None:
    one = ledger(node())
    one._index.columns.free_mem[3, 0] = 99
    assert one.recount() == []


def test_the_nodes_own_problem_is_told_before_that_of_its_cards_and_pods() -> None:
    def problem(of: Ledger) -> str | None:
        state = of.node(N1)
        assert state is not None
        return state.problem

    twice = node(N1, card("x"), card("x", 1))
    broken = [PodRecord(PodRef("ns", uid, PodUid(uid)), N1, problem="?") for uid in ("v", "u")]
    assert problem(ledger(*broken, replace(twice, problem="silent"))) == "silent"
    assert problem(ledger(*broken, twice)) == "card x is registered twice on the node"
    assert problem(ledger(*broken, node())) == "pod ns/u: ?", "the first by uid"
    one = ledger(*broken, node())
    one.drop_pod(PodUid("u"))
    assert problem(one) == "pod ns/v: ?"
    one.drop_pod(PodUid("v"))
    assert problem(one) is None


def test_an_account_is_kept_as_long_as_anybody_needs_it() -> None:
    one = ledger(node(), bound("u", N1, "n1-a", 1))
    one.drop_node(N1)
    assert [each.name for each in one.view().nodes] == [N1]
    one.drop_pod(PodUid("u"))
    assert one.view().nodes == ()
    one.set_pod(PodRecord(PodRef("ns", "odd", PodUid("odd")), N2, problem="?"))
    assert [each.name for each in one.view().nodes] == [N2]
    one.drop_pod(PodUid("odd"))
    assert one.view().nodes == ()
    assert not one.drop_pod(PodUid("odd"))
    assert not one.drop_node(N1)


def test_what_is_asked_of_a_ledger_that_knows_nothing() -> None:
    one = ledger()
    assert one.decide(ask()).plan is None
    assert one.fit(ask(), N1) == UNKNOWN_NODE
    assert (one.node(N1), one.pod(PodUid("u")), one.reservation(PodUid("u"))) == (None, None, None)
    assert (list(one.nodes()), list(one.pods()), list(one.reservations())) == ([], [], [])
    assert one.release(PodUid("u")) is None
    assert (one.expire(1e9), one.overdue(1e9)) == ([], [])
    one.set_host(N1, 5.0)
    assert one.recount() == []


def test_a_plan_that_would_overdraw_a_card_is_a_bug_that_names_card_and_amounts() -> None:
    one = ledger(node())
    made = plan(one, ask(mem=5000))
    state = one.node(N1)
    assert state is not None
    for charge in (
        Charge(CardId("n1-a"), 11, 1, 0),
        Charge(CardId("n1-a"), 1, 8001, 0),
        Charge(CardId("n1-a"), 1, 1, 101),
    ):
        with pytest.raises(Bug, match="n1-a"):
            one.reserve(ask(), replace(made, charges=(charge,)), now=0, ttl=1)
    assert taken(one) == {"n1-a": 0}
