"""What the ledger says: faults by which a person finds what happened, and a recount that names each kind of drift."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.model.errors import Bug, Conflict, StaleGeneration
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Charge

from .test_cluster import N1, N2, ask, bound, ledger, node, plan

Act = Callable[[Ledger], object]


def overfull(one: Ledger) -> object:
    made = plan(one, ask())
    return one.reserve(ask(), replace(made, charges=(Charge(CardId("n1-a"), 1, 9000, 0),)), now=0, ttl=1)


def stale(one: Ledger) -> object:
    made = plan(one, ask())
    one.set_pod(bound("other", N1, "n1-a", 10))
    return one.reserve(ask(), made, now=0, ttl=1)


def bound_already(one: Ledger) -> object:
    made = plan(one, ask())
    one.set_pod(bound("u", N1, "n1-a", 1000))
    return one.reserve(ask(), made, now=0, ttl=1)


def on_its_way(one: Ledger) -> object:
    made = plan(one, ask())
    one.reserve(ask(), made, now=0, ttl=1)
    one.binding(PodUid("u"), now=0, ttl=1)
    return one.reserve(ask(), made, now=0, ttl=1)


@pytest.mark.parametrize(
    ("act", "fault", "words"),
    [
        (bound_already, Conflict, "pod ns/u is already bound to n1"),
        (on_its_way, Conflict, "pod ns/u is being bound to n1; its fate is not known yet"),
        (stale, StaleGeneration, "node n1 has changed since ns/u was planned on it; plan again"),
        (
            lambda one: one.binding(PodUid("u"), now=0, ttl=1),
            Conflict,
            "nothing is reserved for pod u: the reservation has expired or was given back",
        ),
        (overfull, Bug, "the plan of ns/u takes more of card n1-a on n1 than is left"),
    ],
)
def test_a_fault_says_which_pod_which_node_and_what_to_do(act: Act, fault: type[Exception], words: str) -> None:
    with pytest.raises(fault) as raised:
        act(ledger(node()))
    assert str(raised.value) == words


def test_a_slice_that_just_fits_is_no_bug() -> None:
    one = ledger(node())
    made = plan(one, ask())
    one.reserve(ask(), replace(made, charges=(Charge(CardId("n1-a"), 10, 8000, 100),)), now=0, ttl=1)
    assert one.recount() == []


def two() -> Ledger:
    return ledger(node(N1), node(N2), bound("p", N1, "n1-a", 500))


def drifted(one: Ledger) -> None:
    state = one.node(N1)
    assert state is not None
    one._index._states[one._index.rows["n1"]] = replace(state, cards=(replace(state.cards[0], used_mem_mib=7),))


def doubled(one: Ledger) -> None:
    one.reserve(ask("q"), plan(one, ask("q")), now=0, ttl=1)
    one._pods[PodUid("q")] = bound("q", N1, "n1-a", 1000)


def swapped(one: Ledger) -> None:
    rows = one._index._rows
    rows["n1"], rows["n2"] = rows["n2"], rows["n1"]


CHARGE = "(Charge(card='n1-a', slots=1, mem_mib=500, core_percent=0, instances=()),)"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drifted, ["node n1: state is NodeState(", ", its records make NodeState("]),
        (doubled, ["pod q is both bound and reserved"]),
        (lambda one: one._accounts[N1].holders.clear(), [f"node n1: holders are {{}}, records say {{'p': {CHARGE}}}"]),
        (
            lambda one: one._index.columns.free_mem.__setitem__((0, one._index.rows["n1"]), 3),
            ["node n1: column free_mem is [3], its cards make [7500]"],
        ),
        (
            lambda one: one._index.columns.kind.__setitem__((0, one._index.rows["n1"]), 0),
            ["node n1: column kind is [0", ", its cards make [1"],
        ),
        (
            lambda one: one._index.columns.usable.__setitem__(one._index.rows["n1"], False),
            ["node n1: score, use or number of cards differs from its state\n"],
        ),
        (lambda one: one._accounts.pop(NodeName("n2")), ["node n2 has a row and no account"]),
        (swapped, ["row 1 belongs to n1 and holds n2", "row 0 belongs to n2 and holds n1"]),
    ],
)
def test_a_recount_names_every_kind_of_drift(damage: Act, words: list[str]) -> None:
    one = two()
    assert one.recount() == []
    damage(one)
    told = "".join(f"{each}\n" for each in one.recount())
    for each in words:
        assert each in told, told
