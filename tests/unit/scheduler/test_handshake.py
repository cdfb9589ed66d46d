"""Agents that fall silent are noticed, whatever their clocks say."""

from hami.scheduler.watch.handshake import Handshakes, reported

WALL = 1_800_000_000.0
FRESH = "Reported_2027-01-15 08:00:00"  # == WALL


class Clocks:
    def __init__(self) -> None:
        self.mono = 50.0
        self.handshakes = Handshakes(150.0, lambda: self.mono, lambda: WALL)


def test_a_node_that_never_reported_is_tolerated() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", None)
    clocks.mono += 10_000
    assert clocks.handshakes.problem("n") is None
    assert clocks.handshakes.turned() == []


def test_a_report_holds_for_the_timeout_and_then_the_reason_names_it() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", FRESH)
    clocks.mono += 150
    assert clocks.handshakes.problem("n") is None
    clocks.mono += 1
    assert clocks.handshakes.turned() == ["n"]
    problem = clocks.handshakes.problem("n")
    assert problem == "the node's agent has not reported since 2027-01-15 08:00:00 UTC, more than 150 s ago"
    assert clocks.handshakes.turned() == [], "told once"


def test_a_new_value_proves_life_even_when_the_time_in_it_is_long_past() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", "Reported_2020-01-01 00:00:00")
    assert clocks.handshakes.problem("n") is not None
    clocks.handshakes.see("n", "Reported_2020-01-01 00:00:30")
    assert clocks.handshakes.problem("n") is None


def test_the_same_value_seen_again_is_no_new_report() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", FRESH)
    clocks.mono += 151
    clocks.handshakes.see("n", FRESH)
    assert clocks.handshakes.problem("n") is not None


def test_after_a_restart_an_old_report_is_judged_by_the_time_in_it() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", "Reported_2027-01-15 07:50:00")
    assert clocks.handshakes.turned() == ["n"]


def test_a_clock_ahead_of_ours_does_not_make_a_report_live_longer() -> None:
    clocks = Clocks()
    clocks.handshakes.see("n", "Reported_2027-01-15 09:00:00")
    clocks.mono += 151
    assert clocks.handshakes.problem("n") is not None


def test_a_scheduler_s_request_and_nonsense_count_as_no_report() -> None:
    assert reported("Requesting_2027-01-15 08:00:00") is None
    assert reported("Reported_yesterday") is None
    assert reported("") is None
    assert reported(FRESH) == WALL


def test_a_timeout_of_zero_never_takes_a_node_out() -> None:
    handshakes = Handshakes(0.0, lambda: 0.0, lambda: WALL)
    handshakes.see("n", "Reported_2020-01-01 00:00:00")
    assert handshakes.problem("n") is None
    assert handshakes.turned() == []
