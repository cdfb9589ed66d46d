"""Moves that free an ask, case by case: whom they name, where to, in which order, and whom they leave alone."""

import pytest
from msgspec.structs import replace

from hami.model.ask import Ask
from hami.model.ids import NodeName
from hami.model.plan import Charge, Plan
from hami.plan.advice.leaving import fewest
from hami.plan.advice.moves import NoRelief, Relief, relieve
from hami.plan.advice.residents import Resident, elsewhere
from hami.plan.exact.fit import fit
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import finish

from .builders import app, node, pod, used, want
from .migs import mig_card

Nodes = dict[NodeName, NodeState]


class World:
    """Nodes, and pods put on cards of our choice."""

    def __init__(self, *nodes: NodeState) -> None:
        self.nodes: Nodes = {one.name: one for one in nodes}
        self.residents: list[Resident] = []

    def put(
        self, uid: str, where: str, *, on: str, mem: int = 4000, cores: int = 0, budgets: tuple[str, ...] = ()
    ) -> "World":
        """A pod on one card; elsewhere it would take any."""
        name = NodeName(where)
        plan = fit(pod(app(want(mem, cores=cores, use_ids=(on,))), uid=uid), self.nodes[name])
        assert isinstance(plan, Plan), plan
        self.nodes[name] = self.nodes[name].bearing(plan.charges)
        one = Resident(plan.pod, name, plan.charges, pod(app(want(mem, cores=cores)), uid=uid), budgets)
        self.residents.append(one)
        return self

    def freed(self, ask: Ask, most: int = 4, trials: int = 20_000, **allowed: int) -> Relief | NoRelief:
        budgets = {name.replace("_", "/"): count for name, count in allowed.items()}
        return finish(relieve(ask, self.nodes, self.residents, budgets, most=most, trials=trials))

    def moves(self, ask: Ask, **more: int) -> list[tuple[str, str]]:
        """Who goes where."""
        found = self.freed(ask, **more)
        assert isinstance(found, Relief), found
        return [(move.pod.uid, move.plan.node) for move in found.moves]


def whole(*cards: str) -> Ask:
    return pod(app(want(8000, cores=100, use_ids=cards)))


def test_who_leaves_goes_to_the_fullest_node_that_has_room() -> None:
    world = World(node(used("d0"), name="a"), node(used("d1"), name="b"), node(used("d2", slots=2, mem=3000), name="c"))
    assert world.put("p", "a", on="d0").moves(whole("d0")) == [("p", "c")]


def test_of_two_who_leave_the_larger_is_housed_first() -> None:
    """So the node that is nearly full is left to it; the other order would find places, too."""
    world = World(node(used("d0"), name="a"), node(used("d1", slots=3, mem=3000), name="b"), node(used("d2"), name="c"))
    world.put("p", "a", on="d0", mem=1000).put("q", "a", on="d0", mem=5000)
    assert world.moves(whole("d0")) == [("q", "b"), ("p", "c")]


def test_who_goes_to_another_card_of_the_same_node_goes_last() -> None:
    world = World(node(used("d0"), used("d1", slots=5, mem=4000), name="a"), node(used("d2", mem=4000), name="b"))
    world.put("p", "a", on="d0").put("q", "a", on="d0")
    moves = world.moves(whole("d0"))
    assert sorted(moves) != moves
    assert moves == [("q", "b"), ("p", "a")]


def test_a_node_that_could_not_serve_if_all_left_hides_no_other() -> None:
    world = World(
        node(used("d0", mem_mib=5000), name="a"), node(used("d1"), name="b"), node(used("d2", mem=2000), name="c")
    )
    world.put("p", "a", on="d0").put("q", "b", on="d1")
    assert world.moves(pod(app(want(8000)))) == [("q", "c")]


def test_pods_of_a_node_that_is_unknown_or_out_are_left_alone() -> None:
    world = World(node(used("d0"), name="a"), node(used("d2"), name="c"))
    world.put("p", "a", on="d0")
    world.nodes[NodeName("a")] = node(used("d0", slots=1, mem=4000), name="a", problem="silent")
    big = pod(app(want(8000, cores=100, use_ids=("d0",))))
    assert world.freed(big) == NoRelief(searched_all=True)
    del world.nodes[NodeName("a")]
    assert world.freed(big) == NoRelief(searched_all=True)


def test_where_two_of_three_must_go_a_budget_chooses_which() -> None:
    world = World(node(used("d0"), name="a"), node(used("d1"), name="b"))
    world.put("p", "a", on="d0", mem=2500, budgets=("ns/b",)).put("q", "a", on="d0", mem=2500, budgets=("ns/b",))
    world.put("r", "a", on="d0", mem=2500)
    asked = pod(app(want(5000, use_ids=("d0",))))
    assert {uid for uid, _ in world.moves(asked, ns_b=1)} == {"p", "r"}
    assert {uid for uid, _ in world.moves(asked, ns_b=2)} == {"p", "q"}
    assert world.freed(asked) == NoRelief(searched_all=True)


def test_a_pod_of_two_containers_is_made_room_for_too() -> None:
    """Both need most of a card, and one card is half full."""
    world = World(node(used("d0"), used("d1"), name="a"), node(used("d2"), name="b")).put("p", "a", on="d1")
    ids = ("d0", "d1")
    asked = pod(app(want(6000, use_ids=ids)), app(want(6000, use_ids=ids)))
    assert world.moves(asked) == [("p", "b")]


def test_two_instances_of_one_card_are_made_room_for() -> None:
    """Two 3g.20gb fill an A100 in MIG mode, on which there is a 1g.5gb."""
    world = World(node(CardState(mig_card("d0")), name="a"), node(CardState(mig_card("d1")), name="b"))
    world.put("p", "a", on="d0", mem=4000)
    assert world.moves(pod(app(want(18_000, cards=2, use_ids=("d0",))))) == [("p", "b")]


def test_one_card_in_mig_mode_that_is_left_serves_an_ask_for_two() -> None:
    """Two A100 are full. For two instances one of them is enough, where two cards without MIG would have to be left."""
    world = World(node(CardState(mig_card("d0")), CardState(mig_card("d1")), name="a"))
    world.nodes[NodeName("b")] = node(CardState(mig_card("d2")), name="b")
    world.put("p", "a", on="d0", mem=40_000).put("q", "a", on="d1", mem=40_000)
    assert world.moves(pod(app(want(4000, cards=2, use_ids=("d0", "d1"))))) == [("p", "b")]


def test_no_more_are_named_than_must_go() -> None:
    """Each of ten gives back the slice that lacks."""
    world = World(node(used("d0"), name="a"), node(used("d1"), name="b"))
    for number in range(10):
        world.put(f"p{number}", "a", on="d0", mem=10)
    assert len(world.moves(pod(app(want(10, use_ids=("d0",)))))) == 1


@pytest.mark.parametrize(
    ("mem", "taken", "least"),
    [
        (10, [(1, 10, 0)] * 10, 1),  # one slice of ten
        (10, [(2, 10, 0)] * 5, 1),
        (1000, [(1, 0, 60), (1, 0, 39)], 0),  # one percent is left, and none is asked
        (8001, [(1, 3000, 0)], None),  # one MiB more than the card has
        (8000, [(1, 3000, 0)], 1),
    ],
)
def test_the_least_that_must_leave_a_card_is_exact_where_all_are_alike(
    mem: int, taken: list[tuple[int, int, int]], least: int | None
) -> None:
    charges = [Charge("d0", *each) for each in taken]  # type: ignore[arg-type]
    state = node(used("d0"))
    for charge in charges:
        state = state.bearing((charge,))
    assert fewest(want(mem), state.cards[0], charges) == least


def test_one_card_with_room_among_full_ones_is_enough_to_go_to() -> None:
    world = World(node(used("d0"), name="a")).put("p", "a", on="d0")
    mixed = node(used("d1", mem=8000), used("d2"), used("d3", slots=10), name="b")
    assert finish(elsewhere(world.residents[0], [mixed])) == "b"


def test_who_leaves_gives_back_once_what_he_holds() -> None:
    """4000 MiB lack: the small one gives half of it."""
    world = World(node(used("d0"), name="a"), node(used("d1", mem_mib=6000), name="b"))
    world.put("small", "a", on="d0", mem=2000).put("large", "a", on="d0", mem=5000)
    assert world.moves(pod(app(want(5000, use_ids=("d0",))))) == [("large", "b")]


def test_nobody_goes_back_to_a_card_that_is_asked_for_alone() -> None:
    """Beside the ask there would be room for him; but then the card is not idle."""
    world = World(node(used("d0"), name="a")).put("p", "a", on="d0", mem=1000)
    assert world.freed(pod(app(want(2000)), cards=("mutex", "binpack"))) == NoRelief(searched_all=True)


def test_pods_of_a_node_that_is_gone_or_silent_hide_no_other() -> None:
    world = World(node(used("d9"), name="gone"), node(used("d8"), name="out"), node(used("d0"), name="a"))
    world.put("p", "gone", on="d9").put("q", "out", on="d8").put("r", "a", on="d0")
    del world.nodes[NodeName("gone")]
    world.nodes[NodeName("out")] = replace(world.nodes[NodeName("out")], problem="silent")
    world.nodes[NodeName("b")] = node(used("d1", 1, 4000), name="b")
    assert world.moves(whole("d0")) == [("r", "b")]
