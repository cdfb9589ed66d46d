"""What is seen between two decisions spares the next one the look, and changes no answer."""

from random import Random

import numpy as np
from tests.unit.plan.packs import GPU, ask, card, ledger_of

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ids import NodeName

SIZES = (150, 400, 700)


def cluster(nodes: int) -> Ledger:
    return ledger_of(*[(f"n{number:03}", 4, "A", 1e5) for number in range(nodes)])


def test_whoever_looks_ahead_decides_as_who_does_not() -> None:
    """Pods come and go, nodes come, some with more cards than any before, and hosts lose CPU."""
    random, one, other = Random(1), cluster(12), cluster(12)
    held: list[str] = []
    for number in range(300):
        pod = ask(f"p{number}", random.choice(SIZES), cpu=1000)
        plans = [ledger.decide(pod).plan for ledger in (one, other)]
        assert plans[0] == plans[1]
        if plans[0] is not None:
            held.append(pod.pod.uid)
        changes = [(pod, plans[0])]
        gone = held.pop(random.randrange(len(held))) if held and random.random() < 0.6 else None
        host, cpu = f"n{random.randrange(12):03}", random.randrange(100_000)
        for ledger in (one, other):
            for placed, plan in changes:
                if plan is not None:
                    ledger.reserve(placed, plan, number, 1e9)
            if gone is not None:
                ledger.release(gone)  # type: ignore[arg-type]
            if number % 7 == 0:
                ledger.set_host(NodeName(host), cpu)
            if number % 60 == 30:
                name = NodeName(f"late{number}")
                width = 4 + number // 60
                ledger.set_node(NodeRecord(name, tuple(card(name, place) for place in range(width))))
        one.look_ahead()


def test_what_a_decision_changed_has_been_seen_when_the_next_one_begins() -> None:
    ledger = cluster(3)
    pod = ask("p", 400)
    plan = ledger.decide(pod).plan
    assert plan is not None
    ledger.reserve(pod, plan, 0, 30)
    own, columns = ledger._index.pack._families[GPU], ledger._index.columns
    row = ledger._index.rows[plan.node]
    every = np.arange(columns.rows)
    assert own.rows._stale(columns, every).tolist() == [row]
    ledger.look_ahead()
    assert own.rows._stale(columns, every).tolist() == []
    assert own.rows.room[row] == 3600


def test_before_anybody_asked_and_while_columns_have_grown_there_is_nothing_to_see() -> None:
    ledger = cluster(2)
    ledger.look_ahead()
    ledger.decide(ask("p", 400))
    rows = ledger._index.pack._families[GPU].rows
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"late{number}"), (card(f"late{number}", 0),)))
    ledger.look_ahead()
    assert len(rows.room) < 102, "the next decision makes room"
    assert ledger.decide(ask("q", 400)).plan is not None
    rows = ledger._index.pack._families[GPU].rows
    ledger.set_node(NodeRecord(NodeName("wide"), tuple(card("wide", place) for place in range(9))))
    ledger.look_ahead()
    assert len(rows.place) == 8
    wide = ask("q", 400, cards=9)
    plan = ledger.decide(wide).plan
    assert plan is not None
    assert plan.node == "wide"
