"""How many pods of several cards run at once, by what came and left."""

import pytest

from hami.ledger.records import PodRecord
from hami.model.ask import CardAsk
from hami.model.ids import CardId, Family, PodUid
from hami.model.plan import Slice
from hami.plan.pack.demand import Demand, Shape
from hami.plan.pack.lives import MOST_WIDTHS, Lives

from .packs import GPU, ask, bind, decided, ledger_of

OTHER = Family("other")


def running(lives: Lives, uid: str, cards: int) -> None:
    record = bound(uid, cards)
    lives.begin(record.ref.uid, record.containers)


def bound(uid: str, cards: int) -> PodRecord:
    ledger = ledger_of(("n", 8, "A", 1e9))
    bind(ledger, one := ask(uid, 1000, cards), decided(ledger, one))
    record = ledger.pod(PodUid(uid))
    assert record is not None
    return record


def test_what_runs_at_once_is_how_often_it_is_asked_times_how_long_it_lives() -> None:
    lives = Lives()
    for number in range(100):  # every tenth is wide, and lives while twenty others ask
        lives.ask(GPU, 8 if number % 10 == 0 else 1)
        if number % 10 == 0:
            running(lives, f"w{number}", 8)
        if number % 10 == 0 and number >= 20:
            lives.end(PodUid(f"w{number - 20}"))
    lives.end(PodUid("w80"))
    lives.end(PodUid("w90"))
    assert 1.5 < lives.at_once(GPU)[8] < 2.5


def test_pods_that_wait_in_vain_count_among_those_that_come() -> None:
    served, starved = Lives(), Lives()
    for number in range(50):
        for lives in (served, starved):
            lives.ask(GPU, 4)
            if lives is served or number < 5:
                running(lives, f"w{number}", 4)
            lives.ask(GPU, 1)
            lives.end(PodUid(f"w{number}"))
    assert starved.at_once(GPU) == served.at_once(GPU) == {4: 0.5}, "each lives while one other asks"


def test_as_long_as_fewer_have_left_than_run_those_that_run_are_the_best_guess() -> None:
    lives = Lives()
    lives.ask(GPU, 8)
    assert lives.at_once(GPU) == {8: 0.0}
    for uid in ("one", "two", "three"):
        running(lives, uid, 8)
        lives.ask(GPU, 1)
    assert lives.at_once(GPU) == {8: 3.0}
    assert lives.at_once(Family("other")) == {}
    lives.end(PodUid("one"))
    assert lives.at_once(GPU) == {8: 2.0}
    lives.end(PodUid("two"))  # one of four asks was for eight cards; six asks were lived through, and two have left
    assert lives.at_once(GPU) == {8: pytest.approx(1 / 4 * 6 / 2)}


def test_a_pod_that_is_told_of_twice_runs_once_and_leaves_once() -> None:
    lives = Lives()
    running(lives, "one", 8)
    running(lives, "one", 8)
    assert lives.at_once(GPU) == {8: 1.0}
    lives.ask(GPU, 8)
    lives.end(PodUid("one"))
    lives.end(PodUid("one"))
    lives.end(PodUid("never seen"))
    assert lives.at_once(GPU) == {8: 1.0}, "it lived for one ask, and each ask was for its like"


def test_a_container_with_cards_of_two_families_counts_with_each() -> None:
    both = (
        *(Slice(CardId(f"g{n}"), GPU, 1000, 10) for n in range(2)),
        *(Slice(CardId(f"o{n}"), OTHER, 2000, 0) for n in range(4)),
    )
    lives, demand = Lives(), Demand()
    lives.begin(PodUid("one"), [both])
    assert (lives.at_once(GPU), lives.at_once(OTHER)) == ({2: 1.0}, {4: 1.0}), "not six of the first"
    demand.see_running(PodUid("one"), [both])
    demand.see_running(PodUid("two"), [both[:3]])
    assert demand.mix(GPU) == {Shape(CardAsk(GPU, 2, 10, mem_mib=1000)): 1.0}
    assert demand.mix(OTHER) == {
        Shape(CardAsk(OTHER, 4, 0, mem_mib=2000)): 0.5,
        Shape(CardAsk(OTHER, 1, 0, mem_mib=2000)): 0.5,
    }


def test_pods_of_one_card_are_not_followed_and_those_of_two_are() -> None:
    lives = Lives()
    running(lives, "one", 1)
    lives.ask(GPU, 1)
    assert lives.at_once(GPU) == {}
    running(lives, "two", 2)
    assert lives.at_once(GPU) == {2: 1.0}
    lives.ask(GPU, 2)
    lives.end(PodUid("two"))
    assert lives.at_once(GPU) == {2: 0.5}, "it lived for one of two asks, of which one was for two cards"


def test_after_a_restart_the_pods_that_run_are_the_first_guess_and_their_number_tells_no_time() -> None:
    demand = Demand()
    for uid in ("one", "two", "three"):
        demand.see_running(PodUid(uid), bound(uid, 8).containers)
    for number in range(1000):
        demand.see_running(PodUid(f"small{number}"), bound("small", 1).containers)
    assert demand.lives.at_once(GPU) == {8: 3.0}
    for uid in ("one", "two", "three"):
        demand.leave(PodUid(uid))
    assert demand.lives.at_once(GPU) == {8: 0.0}, "nobody has asked yet"
    demand.see(ask("next", 1000, cards=8))
    assert demand.lives.at_once(GPU) == {8: 0.0}, "nor has time passed while they lived"


def test_a_scheduler_that_only_looks_on_learns_from_the_pods_that_are_bound() -> None:
    leads, looks_on = Demand(), Demand()
    wide, small = bound("wide", 8).containers, bound("small", 1).containers
    for number in range(30):
        for demand in (leads, looks_on):
            for kind, cards, containers in (("w", 8, wide), ("s", 1, small)):
                uid = PodUid(f"{kind}{number}")
                if demand is leads:
                    demand.see(ask(uid, 1000, cards=cards))
                demand.see_running(uid, containers)
            demand.leave(PodUid(f"w{number}"))
    assert leads.lives.at_once(GPU) == {8: 0.5}
    assert looks_on.lives.at_once(GPU)[8] == pytest.approx(0.5, abs=0.05)


def test_forgetting_by_halves_leaves_what_was_learned_as_it_is() -> None:
    lives = Lives()
    for number in range(10):
        lives.ask(GPU, 8)
        running(lives, f"w{number}", 8)
        lives.ask(GPU, 1)
        lives.end(PodUid(f"w{number}"))
    before = lives.at_once(GPU)
    lives.halve()
    assert lives.at_once(GPU) == before


def test_work_that_has_changed_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.demand.MEMORY", 100)
    demand = Demand()
    wide = bound("wide", 8).containers
    for number in range(400):
        demand.see(ask(f"w{number}", 1000, cards=8))
        demand.lives.begin(PodUid(f"w{number}"), wide)
        demand.see(ask(f"s{number}", 1000))
        demand.leave(PodUid(f"w{number}"))
    assert demand.lives.at_once(GPU) == {8: pytest.approx(0.5, abs=0.02)}
    for number in range(600):
        demand.see(ask(f"t{number}", 1000))
    assert demand.lives.at_once(GPU)[8] < 0.01


def test_widths_that_nobody_has_are_forgotten_before_they_are_a_burden_and_those_that_run_never() -> None:
    lives = Lives()
    running(lives, "wide", 8)
    for _ in range(2):
        lives.ask(GPU, 4)
    for cards in range(100, 100 + 3 * MOST_WIDTHS):
        lives.ask(GPU, cards)
    at_once = lives.at_once(GPU)
    assert len(at_once) == MOST_WIDTHS
    assert at_once[8] == 1
    assert 4 in at_once
