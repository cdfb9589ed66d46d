"""An agent killed between any two writes: what the next one finds on the disk is enough, and nothing is left over.

The kill is a fault that nothing in the agent catches, at the nth thing that is done to the disk; then another agent
starts on what is there, and kubelet asks again.
"""

import os
import shutil
from pathlib import Path

import pytest

from hami.agent.grants import house
from hami.sim.kubelet import NotStarted, Rejected

from .conftest import ask, one, uuid
from .test_resize import record

LATEST = 40
"""No act here does more to the disk than that."""


class Killed(Exception):
    """Nothing in the agent catches this."""


class Disk:
    """Counts what is done to the disk from now on; at the `at`th the agent is killed, before it is done."""

    def __init__(self, monkeypatch, at):
        self.done, self.at, self.killed = 0, at, False
        for owner, name in ((Path, "replace"), (Path, "mkdir"), (Path, "open"), (os, "fchmod"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, real):
        def act(*words, **more):
            if real.__name__ == "open" and "w" not in str(words[1:]):
                return real(*words, **more)
            self.done += 1
            if self.killed or self.done == self.at:
                self.killed = True
                raise Killed
            return real(*words, **more)

        return act


async def tidy(node):
    node.pods.complete()
    keeper = house.House(node.parts)
    await keeper.tidy()
    return keeper


def left_over(node):
    """Folders of no seat: nobody would ever remove them."""
    return node.parts.folders.keys() - {seat.key for seat in node.parts.seats}


async def killed_at_each(make_node, monkeypatch, prepare, act):
    """For each write of `act` a node whose agent was killed there, on which another one has taken over; at least five.

    `prepare` gives what the test goes on with.
    """
    for at in range(1, LATEST):
        node = await make_node()
        ready = await prepare(node)
        with monkeypatch.context() as patched:
            disk = Disk(patched, at)
            try:
                await act(node, ready)
            except (Rejected, NotStarted, Killed):
                assert disk.killed
        if not disk.killed:
            break
        await node.restart_agent()
        await tidy(node)
        yield node, ready
        assert left_over(node) == set()
        await node.close()
    assert 5 < at < LATEST


async def test_killed_in_an_allocate_the_next_agent_has_all_grants_and_gives_this_one(make_node, monkeypatch):
    async def prepare(node):
        before, pod = (node.pod(f"p{c}", ask(mem=500 + c, slices=one(c, 500 + c))) for c in (1, 2))
        await node.kubelet.admit(before)
        return before, pod

    async for node, pods in killed_at_each(
        make_node, monkeypatch, prepare, lambda node, pods: node.kubelet.admit(pods[1])
    ):
        first = node.policy(await node.run(pods[0]))
        assert first[uuid(1)].startswith("mem_mib 501 ")
        await node.kubelet.admit(pods[1])
        assert node.policy(await node.run(pods[1]))[uuid(2)].startswith("mem_mib 502 ")
        assert len(node.parts.seats) == 2


@pytest.mark.parametrize("taken_back", [False, True])
async def test_killed_in_a_resize_the_next_agent_brings_the_container_to_its_record(make_node, monkeypatch, taken_back):
    """Also where the record has gone back to what it was before the next one came."""

    async def prepare(node):
        pod = node.pod("a", ask(mem=4000, cores=20, slices=one(1, 4000, 20)))
        await node.kubelet.admit(pod)
        return node.update(pod, **record(one(1, 1000, 5))), await node.run(pod)

    async def act(node, ready):
        try:
            await tidy(node)
        finally:
            if taken_back:
                node.update(ready[0], **record(one(1, 4000, 20)))

    expected = "mem_mib 4000 core_percent 20" if taken_back else "mem_mib 1000 core_percent 5"
    async for node, (pod, answer) in killed_at_each(make_node, monkeypatch, prepare, act):
        assert node.policy(answer)[uuid(1)] == expected
        assert node.policy(await node.run(pod))[uuid(1)] == expected
        assert not any(seat.unsettled for seat in node.parts.seats)


async def test_killed_while_a_container_starts_it_starts_later_with_its_own_limits(make_node, monkeypatch):
    """Its folder is made anew: somebody has removed all of them."""

    async def prepare(node):
        pods = [node.pod(name, ask(mem=700, slices=one(1, 700))) for name in ("a", "b")]
        for pod in pods:
            await node.kubelet.admit(pod)
        for seat in node.parts.seats:
            shutil.rmtree(node.parts.folders.root / seat.key)
        return pods

    async for node, pods in killed_at_each(make_node, monkeypatch, prepare, lambda node, pods: node.run(pods[0])):
        for pod in pods:
            policy = node.policy(await node.run(pod))
            assert (policy["container"], policy[uuid(1)][:11]) == (f"{pod.metadata.uid}/main", "mem_mib 700")


async def test_killed_while_pods_go_their_grants_go_and_no_other(make_node, monkeypatch):
    async def prepare(node):
        pods = [node.pod(f"p{c}", ask(mem=500 + c, slices=one(c, 500 + c))) for c in range(5)]
        for pod in pods:
            await node.kubelet.admit(pod)
            await node.run(pod)
        for pod in pods[1:]:
            node.delete(pod)
        return pods[0]

    async for node, stays in killed_at_each(make_node, monkeypatch, prepare, lambda node, _: tidy(node)):
        assert [seat.grant.pod.name for seat in node.parts.seats] == ["p0"]
        assert node.policy(await node.run(stays))[uuid(0)].startswith("mem_mib 500 ")
