"""Leader election in fake time: never two leaders, a leader soon, whatever the clocks and the network do."""

import asyncio
from contextlib import suppress

import pytest

from hami.kube.lease import Elector, Lease
from hami.model.errors import Unavailable
from hami.sim.apiserver import Faults, MemoryKube, Store
from hami.sim.apiserver.faults import Fault
from hami.sim.apiserver.route import Place

pytestmark = pytest.mark.looptime
PLACE = Place("coordination.k8s.io/v1/leases", "hami", "scheduler")


class Candidate:
    """An elector with a network of its own to the shared server."""

    def __init__(self, store: Store, identity: str) -> None:
        self.faults = Faults()
        loop = asyncio.get_running_loop()
        self.elector = Elector(
            MemoryKube(store, self.faults), "hami", "scheduler", identity, clock=loop.time, chance=lambda: 0.5
        )
        self.terms: list[tuple[str, float]] = []
        self.working = False
        self.task = asyncio.create_task(self.elector.run(self.work, self.stopped))

    async def work(self) -> None:
        self.terms.append(("started", asyncio.get_running_loop().time()))
        self.working = True
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False

    def stopped(self) -> None:
        assert not self.working, "the work must have ended before the term is over"
        self.terms.append(("stopped", asyncio.get_running_loop().time()))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    def crash(self) -> None:
        """The process is gone: nothing is given back."""
        self.faults.script(Fault("drop", times=1_000_000))
        self.task.cancel()


def lease(store: Store) -> Lease:
    import msgspec

    return msgspec.json.decode(store.get(PLACE).encoded, type=Lease)


async def test_the_first_candidate_leads_and_writes_down_that_it_does() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    assert one.elector.is_leader
    assert one.working
    assert (lease(store).spec.holder_identity, lease(store).spec.lease_duration_seconds) == ("one", 15)
    await one.stop()


async def test_a_lease_is_renewed_with_one_call_each() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    version = store.version
    await asyncio.sleep(60)
    assert one.elector.is_leader
    assert store.version - version == 30
    assert lease(store).spec.lease_transitions == 0
    await one.stop()


async def test_a_crashed_leader_is_followed_after_its_duration() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    two = Candidate(store, "two")
    await asyncio.sleep(10)
    assert two.elector.holder == "one"
    one.crash()
    crashed = asyncio.get_running_loop().time()
    await asyncio.sleep(30)
    (start,) = two.terms
    assert 13.0 <= start[1] - crashed <= 20.0
    assert lease(store).spec.lease_transitions == 1
    await two.stop()


async def test_a_leader_that_ends_gives_the_lease_back_and_is_followed_at_once() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    two = Candidate(store, "two")
    await asyncio.sleep(5)
    await one.stop()
    assert not one.elector.is_leader
    assert [what for what, _ in one.terms] == ["started", "stopped"]
    await asyncio.sleep(3)
    assert two.elector.is_leader
    await two.stop()


async def test_a_leader_cut_off_stops_by_its_own_clock_before_another_starts() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    two = Candidate(store, "two")
    await asyncio.sleep(5)
    one.faults.script(Fault("drop", times=20))
    await asyncio.sleep(60)
    stopped = dict(one.terms)["stopped"]
    started = dict(two.terms)["started"]
    assert started - stopped >= 3.0  # 15 s duration less 10 s renew, less one retry
    assert not one.elector.is_leader
    await one.stop()
    await two.stop()


async def test_a_server_that_hangs_does_not_keep_a_leader_in_office() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    one.faults.script(Fault("delay", seconds=100.0, times=3))
    await asyncio.sleep(12)
    assert not one.elector.is_leader
    assert not one.working
    await one.stop()


async def test_a_term_is_counted_from_before_the_question_not_from_the_answer() -> None:
    store = Store()
    loop = asyncio.get_running_loop()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    one.faults.script(Fault("delay", method="PATCH", seconds=6.0), Fault("drop", times=1000))
    asked = loop.time() + 1.0  # the next renewal
    await asyncio.sleep(7.5)
    assert one.elector.is_leader
    await asyncio.sleep(20)
    assert dict(one.terms)["stopped"] <= asked + 10.5
    await one.stop()


async def test_an_answer_that_got_lost_costs_nothing() -> None:
    store = Store()
    one = Candidate(store, "one")
    await asyncio.sleep(1)
    one.faults.script(Fault("lose", method="PATCH"))
    await asyncio.sleep(30)
    assert one.terms == [("started", one.terms[0][1])]
    assert one.elector.is_leader
    await one.stop()


async def test_of_many_that_come_at_once_one_leads() -> None:
    store = Store()
    candidates = [Candidate(store, f"c{number}") for number in range(5)]
    for _ in range(40):
        await asyncio.sleep(1)
        assert sum(candidate.elector.is_leader for candidate in candidates) <= 1
    assert sum(candidate.working for candidate in candidates) == 1
    for candidate in candidates:
        await candidate.stop()


@pytest.mark.parametrize("seed", range(20))
async def test_never_two_leaders_and_always_one_again(seed: int) -> None:
    store = Store()
    chance = Faults(seed).random
    candidates = [Candidate(store, f"c{number}") for number in range(3)]
    for _ in range(200):
        await asyncio.sleep(chance.uniform(0.1, 3.0))
        assert sum(candidate.elector.is_leader for candidate in candidates) <= 1
        assert sum(candidate.working for candidate in candidates) <= 1
        victim = chance.choice(candidates)
        act = chance.choice(["drop", "lose", "delay", "refuse"])
        times, seconds = chance.randrange(1, 12), chance.uniform(0.1, 20.0)
        if chance.random() < 0.3:
            victim.faults.script(Fault(act, times=times, seconds=seconds, status=500))  # type: ignore[arg-type]
    for candidate in candidates:
        candidate.faults.clear()
    await asyncio.sleep(60)
    assert sum(candidate.elector.is_leader for candidate in candidates) == 1
    for candidate in candidates:
        await candidate.stop()


async def test_work_that_fails_ends_the_candidate_and_gives_the_lease_back() -> None:
    store = Store()
    loop = asyncio.get_running_loop()
    elector = Elector(MemoryKube(store), "hami", "scheduler", "one", clock=loop.time)

    async def fails() -> None:
        await asyncio.sleep(3)
        raise Unavailable("mine")

    with pytest.raises(Unavailable, match="mine"):
        await elector.run(fails)
    assert lease(store).spec.holder_identity == ""


async def test_times_that_could_overlap_are_refused() -> None:
    for times in ((10.0, 10.0, 2.0), (15.0, 2.0, 2.0)):
        with pytest.raises(ValueError, match="retry < renew < duration"):
            Elector(MemoryKube(Store()), "a", "b", "c", *times)
    with pytest.raises(ValueError, match="identity"):
        Elector(MemoryKube(Store()), "a", "b", "")
