"""The policy `pack`: what has become scarce shows at the next look, at prices that are kept."""

from random import Random

import numpy as np
import pytest

from hami.ledger.cluster import Ledger
from hami.ledger.records import PodRecord
from hami.model.ask import Ask
from hami.model.ids import CardId, NodeName
from hami.model.plan import Charge, Plan
from hami.plan.pack import Pack
from hami.plan.pack.judged import Judged, judging
from hami.plan.steps import finish

from .packs import GPU, ask, came_and_went, judged, ledger_of, pack_of


def charge(place: int, mem: int) -> Charge:
    return Charge(CardId(f"n/{place}"), 1, mem, 0)


def same_prices(one: Judged, other: Judged) -> bool:
    """The very same, not made anew."""
    return all(old is new for old, new in zip(one.scale.residues, other.scale.residues, strict=True))


def gains(pack: Pack, ledger: Ledger, asks: list[Ask]) -> list[float]:
    """What a policy says of every node."""
    columns = ledger._index.columns
    return [gain for one in asks for gain in pack.gains(one, columns, np.arange(columns.rows)).tolist()]


def cards_taken(pack: Pack, ledger: Ledger, asks: list[Ask]) -> list[list[int]]:
    """And which cards it would take there."""
    told = [pack.worth(one, ledger._index.columns, row) for one in asks for row in range(ledger._index.columns.rows)]
    return [[price.place for price in one.prices if price.free != price.free_after] if one else [] for one in told]


@pytest.mark.parametrize("seed", range(16))
def test_what_is_scarce_is_seen_anew_at_old_prices_as_a_newcomer_would_see_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mix stays as it was, so that nothing is judged anew; what is used and who leaves moves."""
    monkeypatch.setattr("hami.plan.pack.judged.ENOUGH", 1)
    monkeypatch.setattr("hami.plan.pack.scale.ENOUGH_ROOM", (0.5, 2.0)[seed % 2])  # scarce
    random = Random(seed)
    ledger = ledger_of(
        *[(f"n{place}", random.choice((1, 2, 4)), "A", random.choice((9e3, 64e3))) for place in range(12)]
    )
    pack, demand = pack_of(ledger), pack_of(ledger).demand
    cycle = [(random.choice((300, 470, 500)), 1, 1000), (810, 1, 4000), (random.choice((650, 1000)), 2, 0)]
    asked = [ask(f"next{number}", *shape) for number, shape in enumerate([*cycle, (100, 1, 0), (200, 1, 0)])]

    def round_of(number: int) -> None:
        for place, shape in enumerate(cycle):
            demand.see(ask(f"s{number}-{place}", *shape))

    round_of(0)
    gains(pack, ledger, asked)
    own, looks = judged(ledger), 0
    for number in range(1, 60):
        for place in range(random.randrange(3)):
            one = ask(f"b{number}-{place}", *random.choice((*cycle, (150, 1, 0))))
            plan = ledger.fit(one, NodeName(f"n{random.randrange(12)}"))
            if isinstance(plan, Plan):
                ledger.set_pod(PodRecord(plan.pod, plan.node, charges=plan.charges))
        round_of(number)
        came_and_went(ledger, f"gone{number}")
        if demand.seen < judged(ledger).again:
            continue
        here, newcomer = gains(pack, ledger, asked), Pack()
        newcomer.demand = demand
        assert here == pytest.approx(gains(newcomer, ledger, asked), rel=1e-5, abs=0.01)
        assert cards_taken(pack, ledger, asked) == cards_taken(newcomer, ledger, asked)
        looks += 1
    assert same_prices(own, judged(ledger)), "at old prices"
    assert looks > 5
    assert judged(ledger).scale.turnover == demand.turnover


@pytest.mark.parametrize("when", range(8))
def test_what_is_placed_while_a_family_is_being_judged_counts_where_seats_are_scarce(
    when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hami.plan.pack.scale.ENOUGH_ROOM", 2.0)
    ledger = ledger_of(("n", 4, "A", 1e9), ("other", 2, "A", 1e9))
    demand, columns = pack_of(ledger).demand, ledger._index.columns
    for number in range(10):
        demand.see(ask(f"s{number}", 500))
        came_and_went(ledger, f"gone{number}")
    steps = judging(demand, GPU, columns)
    for _ in range(when):
        next(steps)
    before = finish(judging(demand, GPU, columns)).scale.weight
    ledger.set_pod(PodRecord(ask("late", 1).pod, NodeName("n"), charges=(charge(0, 1000), charge(1, 700))))
    own, now = finish(steps), finish(judging(demand, GPU, columns))
    assert own.scale.weight.tolist() == now.scale.weight.tolist()
    assert before.tolist() != now.scale.weight.tolist()


def test_the_card_that_is_taken_follows_what_has_become_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ask for 200 costs the first card its seat for 810, the second its seat for 470; the parts that are left are
    worth the same. The seat for 470 is the cheaper one, until no other node has the CPU for it."""
    monkeypatch.setattr("hami.plan.pack.judged.ENOUGH", 1)
    monkeypatch.setattr("hami.plan.pack.scale.ENOUGH_ROOM", 0.2)
    ledger = ledger_of(("n", 2, "A", 1e9), *[(f"other{number:02}", 2, "A", 1e9) for number in range(20)])
    for place, mem in ((0, 190), (1, 400)):
        ledger.set_pod(PodRecord(ask(f"old{place}", 1).pod, NodeName("n"), charges=(charge(place, mem),)))
    seen = 0

    def learn() -> None:
        nonlocal seen
        families, demand = pack_of(ledger)._families, pack_of(ledger).demand
        while seen < 2 or seen % 2 or (GPU in families and demand.seen < families[GPU].again):
            demand.see(ask(f"s{seen}", *((470, 1, 4000), (810, 1, 0))[seen % 2]))
            seen += 1
        came_and_went(ledger, f"gone{seen}")

    def taken() -> list[int]:
        worth = ledger.worth(ask("next", 200), NodeName("n"))
        assert worth is not None
        return [price.place for price in worth.prices if price.free != price.free_after]

    learn()
    assert taken() == [1]
    for number in range(20):
        ledger.set_host(NodeName(f"other{number:02}"), 0)
    own = judged(ledger)
    learn()
    assert taken() == [0]
    assert same_prices(own, judged(ledger))
