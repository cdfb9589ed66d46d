"""Who comes to a card beside one at work: its share from its first moment on, whatever nobody has seen of it yet."""

import time
from typing import Any

import pytest

from hami.wire.policy import CorePolicy

from .node import Node, node, result

__all__ = ["node"]

pytestmark = pytest.mark.realtime
KERNEL_NS = 100_000
WORK = {"PROBE_ROUNDS_A_NS": "1"}


def first(node: Node, policy: Any, seconds: float) -> float:
    """Percent of the card that a program under that policy has from its first launch on."""
    got = result(node.start(policy, "probe", "run", "spin", seconds, KERNEL_NS, **WORK))
    return int(str(got["launches"])) * KERNEL_NS / 1e7 / seconds


def test_one_that_may_use_idle_time_is_held_to_its_share_before_anybody_has_seen_that_it_is_not_alone(
    node: Node,
) -> None:
    """It took itself for alone until the first look, and had what the card's time slices left it: half."""
    newcomer = node.grant("new", mem=None, cores=20, core_policy=CorePolicy.DEFAULT)
    busy = node.grant("busy", mem=None, cores=80, core_policy=CorePolicy.FORCE)
    node.start_agent()
    beside = node.start(busy, "probe", "run", "spin", 6, KERNEL_NS, **WORK)
    had = first(node, newcomer, 0.5)
    beside.kill()
    assert 0 < had < 32  # 20, and 20 ms that may be caught up


def test_one_that_comes_beside_a_program_that_pays_for_nothing_does_not_take_the_card_for_idle(node: Node) -> None:
    """Alone, and free to use idle time, it leaves no launch on the page of turns: its watch thread speaks for it."""
    newcomer = node.grant("new", mem=None, cores=20, core_policy=CorePolicy.DEFAULT)
    alone = node.grant("alone", mem=None, cores=80, core_policy=CorePolicy.DEFAULT)
    node.start_agent(nvml=True)
    beside = node.start(alone, "probe", "run", "spin", 8, KERNEL_NS, **WORK)
    time.sleep(4)  # for some seconds it pays, as nobody has looked
    had = first(node, newcomer, 0.5)
    beside.kill()
    assert 0 < had < 32


def test_one_that_is_alone_with_an_agent_has_all_of_the_card_from_its_first_moment(node: Node) -> None:
    newcomer = node.grant("new", mem=None, cores=20, core_policy=CorePolicy.DEFAULT)
    node.start_agent()
    assert first(node, newcomer, 2.0) > 26  # a busy machine gives less, never more


def test_one_that_is_alone_hears_of_a_newcomer_from_its_first_purchase_on(node: Node) -> None:
    """Not at the agent's next look, up to a second later: until then it had half of the card and more, for a fifth."""
    alone = node.grant("alone", mem=None, cores=20, core_policy=CorePolicy.DEFAULT)
    newcomer = node.grant("new", mem=None, cores=80, core_policy=CorePolicy.FORCE)
    node.start_agent(nvml=True)
    lone = node.start(alone, "probe", "run", "spin", 11, 1_000_000, **WORK)
    time.sleep(4)  # for some seconds it pays, as nobody has looked
    for _ in range(3):
        node.start(newcomer, "probe", "run", "spin", 1, 1_000_000, **WORK).communicate(timeout=60)
        time.sleep(0.7)
    tenths = result(lone)["tenths"][30:]
    assert sum(each <= 40 for each in tenths) >= 18  # of thirty
