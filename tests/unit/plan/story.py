"""Decisions on random clusters, told word for word: what one process says another must say too.

python -m tests.unit.plan.story 20
"""

import sys
from collections.abc import Iterator
from random import Random

from msgspec.structs import replace

from hami.ledger.survey import survey
from hami.plan.advice.moves import relieve
from hami.plan.exact.preempt import Holder, victims
from hami.plan.steps import finish

from .world import World, random_ask


def story(seed: int) -> Iterator[object]:
    """Asks come, some get a slice; whoever gets none is told why, and whom he might drive out or have moved."""
    random = Random(seed)
    world = World(random)
    ledger = world.ledger
    for number in range(6):
        ask = replace(random_ask(random, f"p{number}"), priority=number)
        decision = ledger.decide(ask)
        yield list(decision.feasible), decision.reasons(), decision.plan
        if decision.plan is not None:
            ledger.reserve(ask, decision.plan, 0.0, 10.0)
        elif not ask.empty:
            yield finish(survey(ledger, ask))
            yield finish(relieve(ask, {one.name: one for one in ledger.nodes()}, [], {}))
            holds = list(ledger.reservations())
            for node in ledger.nodes():
                here = [one for one in holds if one.plan.node == node.name]
                yield victims(ask, node, [Holder(one.plan.pod, one.plan.charges, one.ask.priority) for one in here])


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        for told in story(seed):
            print(told)
