"""The end of a schedule: all troubles stop, and what was promised is looked for."""

import msgspec

from hami.ledger.cluster import Ledger
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.watch.records import node_record
from hami.sim.apiserver.route import Place
from hami.sim.apiserver.store import Stored
from hami.vendors.ask import ask_of
from hami.wire.objects import Node, Pod

from .replica import HOLD, VENDORS
from .world import NODES, World

ASKED = 3
"""Waiting pods that are tried at the end: more would cost more than the whole schedule and say no more."""


class Leak(AssertionError):
    """At rest, the ledger holds what the API server does not, or the other way round."""


class Stuck(AssertionError):
    """At rest, a pod that fits is not placed."""


def settle(world: World) -> None:
    """All troubles end. Then: nothing held in vain, nothing forgotten, everything that fits is placed."""
    calm(world)
    rest(world)
    check_ledger(world, "at rest")
    check_decisions(world)
    place_all(world)
    check_ledger(world, "after all was placed")


def calm(world: World) -> None:
    world.faults.clear()
    world.network.trouble = 0.0
    for replica in world.replicas:
        for task in replica.tasks:
            task.finish()
        replica.tasks.clear()
        for late in list(replica.api.late):
            replica.api.land(late)
    for name in NODES:
        world.put_node(name)
    world.hear_of_binds()


def rest(world: World) -> None:
    """Watches catch up, holds and unknown fates run out, and the house is kept once more."""
    for wait in (0.0, HOLD + 121.0, 1.0):
        world.now["clock"] += wait
        for replica in world.replicas:
            for _ in range(50):
                if all(feed.quiet for feed in replica.feeds):
                    break
                for feed in replica.feeds:
                    feed.step(world.chance)
            else:
                raise Stuck("a watch never catches up")
            replica.keep_house(world.now["clock"])
            for task in replica.tasks:
                task.finish()
            replica.tasks.clear()


def check_ledger(world: World, when: str) -> None:
    for replica in world.replicas:
        ledger = replica.ledger
        if held := [str(hold.plan.pod) for hold in ledger.reservations()]:
            raise Leak(f"{when}: still reserved: {held}")
        if ledger.pods() != world.truth.records:
            raise Leak(f"{when}: the ledger has {dict(ledger.pods())}, the API server {world.truth.records}")
        if differences := ledger.recount():
            raise Leak(f"{when}: {differences}")


def check_decisions(world: World) -> None:
    """A waiting pod gets the answer that a ledger made from the API server alone gives."""
    leader = world.replicas[world.leader]
    if leader.gate.closed is not None:
        raise Stuck(f"the leader does not decide: {leader.gate.closed}")
    fresh = fresh_ledger(world)
    for stored in waiting(world)[:ASKED]:
        ask = ask_of(msgspec.json.decode(stored.encoded, type=Pod), VENDORS, leader.engine.policies)
        ours, theirs = leader.ledger.decide(ask, NODES), fresh.decide(ask, NODES)
        if sorted(ours.feasible) != sorted(theirs.feasible):
            raise Stuck(f"{ask.pod}: feasible {ours.feasible}, by the API server's records {theirs.feasible}")


def fresh_ledger(world: World) -> Ledger:
    fresh = Ledger()
    for stored in world.store.list("v1/nodes"):
        record = node_record(msgspec.json.decode(stored.encoded, type=Node), VENDORS, lambda _: None)
        if record is not None:
            fresh.set_node(record)
    for pod in world.truth.records.values():
        fresh.set_pod(pod)
    return fresh


def place_all(world: World) -> None:
    """With a calm network a waiting pod is bound at once where it fits, on an emptied cluster if need be."""
    leader = world.replicas[world.leader]
    for stored in waiting(world)[:ASKED]:
        node = settled_choice(world, stored)
        if node is None:
            empty(world)
            check_decisions(world)
            node = settled_choice(world, stored)
        if node is None:
            continue  # larger than any node
        task = world.bind(stored, node)
        task.finish()
        leader.tasks.clear()
        if task.result != b'{"Error":""}':
            raise Stuck(f"{task.title}: {task.result!r}")
    world.binding.clear()
    rest(world)


def settled_choice(world: World, stored: Stored) -> str | None:
    engine = world.replicas[world.leader].engine
    body = msgspec.json.encode({"Pod": stored.value, "NodeNames": NODES})
    feasible: list[str] = msgspec.json.decode(filtering.answer(engine, body)).get("NodeNames") or []
    return feasible[0] if feasible else None


def waiting(world: World) -> list[Stored]:
    return [
        stored
        for stored in world.store.list("v1/pods")
        if not stored.value["spec"].get("nodeName") and "deletionTimestamp" not in stored.value["metadata"]
    ]


def empty(world: World) -> None:
    for stored in world.store.list("v1/pods"):
        if stored.value["spec"].get("nodeName"):
            place = Place("v1/pods", "d", stored.value["metadata"]["name"])
            world.store.delete(place, {"gracePeriodSeconds": 0})
    rest(world)
