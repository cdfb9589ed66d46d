"""Who decides: the replica whose kube-scheduler leads, and only after it has read everything anew."""

import asyncio
from typing import Any

import pytest

from hami.kube.errors import NotFound, Unreachable
from hami.kube.lease import Elector, Lease, LeaseSpec
from hami.scheduler.gate import NODES, PODS, Gate
from hami.scheduler.watch.replicas import Leadership, LeaseWatcher, elect
from hami.sim.apiserver import MemoryKube, Store
from hami.wire.objects import Metadata

pytestmark = pytest.mark.looptime


class Leases:
    """One Lease as kube-scheduler writes it; `fault` is what the API server answers instead."""

    def __init__(self) -> None:
        self.holder: str | None = "scheduler-0_1111"
        self.version = 1
        self.fault: Exception | None = None

    async def get(self, _path: str, _type: Any) -> Lease:
        if self.fault:
            raise self.fault
        return Lease(Metadata(resource_version=str(self.version)), LeaseSpec(self.holder))


class Pair:
    def __init__(self) -> None:
        self.gate = Gate()
        self.leases = Leases()
        self.rebuilds = 0
        clock = asyncio.get_running_loop().time
        self.watcher = LeaseWatcher(
            self.leases,  # type: ignore[arg-type]
            "hami-system",
            "hami-scheduler",
            "scheduler-0",
            Leadership(self.gate, self.rebuild),
            renew_deadline=10.0,
            clock=clock,
        )
        self.task = asyncio.create_task(self.watcher.run())

    async def rebuild(self) -> None:
        self.rebuilds += 1
        self.gate.rebuild()
        asyncio.get_running_loop().call_later(0.5, self.rebuilt)

    def rebuilt(self) -> None:
        self.gate.rebuilt(NODES)
        self.gate.rebuilt(PODS)

    async def after(self, seconds: float, *, renewing: bool = True) -> str | None:
        """What the gate says after so long."""
        for _ in range(int(seconds * 2)):
            if renewing:
                self.leases.version += 1
            await asyncio.sleep(0.5)
        return self.gate.closed


async def test_it_opens_after_rebuilding_when_its_kube_scheduler_leads() -> None:
    pair = Pair()
    await asyncio.sleep(0.1)
    assert "not rebuilt" in str(pair.gate.closed)
    assert await pair.after(2) is None
    assert pair.rebuilds == 1
    pair.task.cancel()


async def test_it_closes_when_another_takes_the_lease_and_rebuilds_when_it_comes_back() -> None:
    pair = Pair()
    assert await pair.after(2) is None
    pair.leases.holder = "scheduler-1_2222"
    assert "scheduler-1_2222" in str(await pair.after(2))
    pair.leases.holder = "scheduler-0_3333"
    assert await pair.after(3) is None
    assert pair.rebuilds == 2
    pair.task.cancel()


async def test_a_host_whose_name_begins_like_ours_is_not_ours() -> None:
    pair = Pair()
    pair.leases.holder = "scheduler-0_0_2222"
    assert pair.gate.closed is not None
    assert await pair.after(3) is not None
    pair.task.cancel()


async def test_a_lease_that_is_not_renewed_closes_it_at_the_renew_deadline() -> None:
    pair = Pair()
    assert await pair.after(2) is None
    assert await pair.after(8, renewing=False) is None
    assert await pair.after(4, renewing=False) is not None
    pair.task.cancel()


async def test_an_api_server_that_does_not_answer_closes_it_at_the_renew_deadline() -> None:
    pair = Pair()
    assert await pair.after(2) is None
    pair.leases.fault = Unreachable("no connection")
    assert await pair.after(8, renewing=False) is None
    assert await pair.after(4, renewing=False) is not None
    pair.task.cancel()


async def test_without_a_lease_nobody_decides() -> None:
    pair = Pair()
    pair.leases.fault = NotFound(404, "NotFound", "no lease")
    assert await pair.after(3) is not None
    pair.task.cancel()


async def test_a_process_that_slept_through_its_term_answers_nothing_more() -> None:
    pair = Pair()
    assert await pair.after(2) is None
    pair.task.cancel()  # as when the whole process stands still: nobody looks at the Lease
    await asyncio.sleep(11)
    assert pair.gate.closed == "leading: the term has run out by our own clock"


async def test_replicas_elect_one_among_themselves_and_the_next_takes_over() -> None:
    store = Store()
    clock = asyncio.get_running_loop().time
    gates, tasks = [Gate(), Gate()], []
    for number, gate in enumerate(gates):

        async def rebuild(gate: Gate = gate) -> None:
            gate.rebuild()
            gate.rebuilt(NODES)
            gate.rebuilt(PODS)

        elector = Elector(MemoryKube(store), "ns", "lease", f"replica-{number}", clock=clock)
        tasks.append(asyncio.create_task(elect(elector, Leadership(gate, rebuild))))
        await asyncio.sleep(1)
    await asyncio.sleep(30)
    assert [gate.closed is None for gate in gates] == [True, False]
    tasks[0].cancel()
    await asyncio.sleep(5)
    assert [gate.closed is None for gate in gates] == [False, True]
    tasks[1].cancel()
