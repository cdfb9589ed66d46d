"""Time in equal shares, and what one leaves to the others."""

from collections.abc import Callable

from hami.scheduler.loop.shares import Shares


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lasts(clock: Clock, enough: Callable[[], bool]) -> float:
    """Seconds until it is enough, to a hundredth."""
    began = clock.now
    while not enough():
        clock.now = round(clock.now + 0.01, 2)
    return round(clock.now - began, 2)


def test_parts_that_take_all_they_may_get_the_same() -> None:
    clock = Clock()
    shares = Shares(clock, 2.0, 4)
    assert [lasts(clock, shares.next()) for _ in range(4)] == [0.5] * 4
    assert shares.over


def test_what_one_leaves_the_next_ones_have() -> None:
    clock = Clock()
    shares = Shares(clock, 2.0, 4)
    shares.next()
    shares.next()
    clock.now += 0.2
    assert lasts(clock, shares.next()) == 0.9
    assert not shares.over
    assert lasts(clock, shares.next()) == 0.9


def test_whoever_comes_after_the_end_has_nothing() -> None:
    clock = Clock()
    shares = Shares(clock, 1.0, 1)
    assert not shares.over
    clock.now += 1.5
    assert shares.next()()
    assert shares.next()(), "nor does a part more than was said"
    assert Shares(clock, 1.0, 0).next()() is False
