"""PreStartContainer when the guess at Allocate was wrong: exchange, or stop; never another pod's limits."""

import random
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hami.sim.kubelet import NotStarted, Rejected

from .conftest import RESOURCE, ask, one, plain, uuid


async def blind(node, *pods):
    """Admit pods while kubelet does not say whom it admits: Allocate can only go by bind order."""
    node.kubelet.writes_file = False
    node.kubelet.answers_resources = False
    for pod in pods:
        await node.kubelet.admit(pod)
    node.kubelet.answers_resources = True
    node.kubelet.writes_file = True


@pytest.fixture
async def node(make_node):
    return await make_node(allocate_wait=0.05, verify_wait=0.3)


async def test_two_pods_with_equal_slices_are_exchanged_and_both_start(node):
    first, second = node.pod("first", ask(slices=one(1))), node.pod("second", ask(slices=one(1)))
    await blind(node, second, first)
    for pod in (second, first):
        answer = await node.run(pod)
        assert node.policy(answer)["container"] == f"{pod.metadata.uid}/main"
    assert node.verifier.exchanged == 1
    assert node.told.failures == []


async def test_an_exchange_takes_the_priority_of_the_right_pod_along(node):
    high = node.pod("high", ask(slices=one(1), priority=0))
    low = node.pod("low", ask(slices=one(1), priority=1))
    await blind(node, low, high)
    assert node.policy(await node.run(low))["priority"] == "1"
    assert node.policy(await node.run(high))["priority"] == "0"


async def test_a_ring_of_three_wrong_guesses_is_put_right(node):
    pods = [node.pod(f"p{i}", ask(slices=one(1), priority=i % 2)) for i in range(3)]
    await blind(node, pods[1], pods[2], pods[0])
    for pod in (pods[2], pods[0], pods[1]):
        answer = await node.run(pod)
        assert node.policy(answer)["container"] == f"{pod.metadata.uid}/main"
    assert node.told.failures == []


@pytest.mark.parametrize(
    ("one_slice", "other"),
    [
        (one(1, 1000, 10), one(2, 1000, 10)),
        (one(1, 1000, 10), one(1, 2000, 10)),
        (one(1, 1000, 10), one(1, 1000, 20)),
    ],
)
async def test_pods_whose_slices_differ_do_not_start_on_each_others(node, one_slice, other):
    first = node.pod("first", ask(mem=one_slice[0].mem_mib, cores=one_slice[0].core_percent, slices=one_slice))
    second = node.pod("second", ask(mem=other[0].mem_mib, cores=other[0].core_percent, slices=other))
    await blind(node, second, first)
    for pod in (second, first, second):  # kubelet tries again; it stays stopped
        with pytest.raises(NotStarted, match="was given the slice of"):
            await node.run(pod)
    assert {name for name, _ in node.told.failures} == {"first", "second"}
    assert {reason for _, reason in node.told.failures} == {"AllocationMismatch"}


async def test_a_stopped_pod_leaves_the_one_it_was_mistaken_for_its_own_turn(node):
    """After a stop the wronged pod is replaced; the other one, not yet admitted, gets its own slice."""
    first, second = node.pod("first", ask(slices=one(1))), node.pod("second", ask(slices=one(2)))
    await blind(node, second)
    with pytest.raises(NotStarted):
        await node.run(second)
    await node.kubelet.admit(first)
    answer = await node.run(first)
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)
    assert node.policy(answer)["container"] == f"{first.metadata.uid}/main"
    assert [name for name, _ in node.told.failures] == ["second"]


async def test_a_pod_that_was_never_scheduled_does_not_keep_the_grant_it_got_by_mistake(node):
    scheduled = node.pod("scheduled", ask(slices=one(1)))
    stranger = node.pod("stranger", ask(slices=one(1)), record=False)
    await blind(node, stranger)
    with pytest.raises(NotStarted):
        await node.run(stranger)
    await node.kubelet.admit(scheduled)
    assert node.policy(await node.run(scheduled))["container"] == f"{scheduled.metadata.uid}/main"


async def test_nothing_starts_while_kubelet_does_not_say_who_it_is(node):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    node.kubelet.answers_resources = False
    with pytest.raises(NotStarted, match="nobody says whose devices these are"):
        await node.run(pod)
    node.kubelet.answers_resources = True
    await node.run(pod)


async def test_a_pod_that_was_given_up_does_not_start(node):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    node.update(pod, **{"hami.io/bind-phase": "failed"})
    with pytest.raises(NotStarted, match="given up"):
        await node.run(pod)


async def test_a_policy_that_was_damaged_on_the_host_is_written_again_at_each_start(node):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    path = Path(next(m.host_path for m in answer.mounts if m.container_path.endswith("/policy")))
    path.unlink()  # noqa: ASYNC240
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 1000 core_percent 10"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444  # noqa: ASYNC240


@pytest.mark.parametrize("name", ["libvgpu.so.1", "ld.so.preload"])
@pytest.mark.parametrize("left", ["nothing", "the folder that a runtime makes of it"])
async def test_no_container_starts_without_the_library_that_holds_it(make_node, name, left):
    """Mounts that are not there become empty folders, and the loader goes on without the library: fail closed."""
    node = await make_node(library_file="/nowhere/libvgpu.so")
    pod = node.pod("p", ask(slices=one(0)))
    path = Path(node.settings.hook_path) / "vgpu" / name
    path.unlink()
    if left != "nothing":
        path.mkdir()
    await node.kubelet.admit(pod)
    with pytest.raises(NotStarted, match="cannot be put back"):
        await node.run(pod)


async def test_a_container_that_restarts_fifty_times_has_one_seat_one_folder_and_writes_nothing_after_the_first(
    node, monkeypatch
):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    first = node.policy(await node.run(pod))
    folder = next(node.parts.folders.root.iterdir())
    written = {path: path.stat().st_ino for path in (*folder.iterdir(), node.checkpoint.path)}
    for _ in range(50):
        assert node.policy(await node.run(pod)) == first
    assert (len(node.parts.seats), list(node.parts.folders.root.iterdir())) == (1, [folder])
    assert {path: path.stat().st_ino for path in (*folder.iterdir(), node.checkpoint.path)} == written


async def test_a_removed_library_is_put_back_before_the_next_container_starts(node):
    pod = node.pod("p", ask(slices=one(0)))
    await node.kubelet.admit(pod)
    preload = Path(node.settings.hook_path) / "vgpu/ld.so.preload"
    preload.unlink()
    preload.mkdir()
    await node.run(pod)
    assert preload.read_text() == "/usr/local/vgpu/libvgpu.so\n"


async def test_a_library_of_another_version_that_is_gone_stops_the_container_and_says_what_helps(node):
    pod = node.pod("p", ask(slices=one(0)))
    await node.kubelet.admit(pod)
    (Path(node.settings.hook_path) / "vgpu/libvgpu.so.1").unlink()
    with pytest.raises(NotStarted, match="delete the pod"):
        await node.run(pod)


async def test_a_successor_of_the_same_name_is_told_from_the_pod_that_was_forcibly_deleted(node):
    old = node.pod("web-0", ask(slices=one(1)), uid="old")
    await node.kubelet.admit(old)
    await node.run(old)
    node.delete(old)  # from the API, by force: kubelet still ends its containers
    new = node.pod("web-0", ask(slices=one(2)), uid="new")
    await node.kubelet.admit(new)
    answer = await node.run(new)
    assert node.policy(answer)["container"] == "new/main"
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(2)


SLICES = [one(1, 1000, 10), one(1, 1000, 10), one(2, 1000, 10), one(1, 2000, 10)]
HONEST = ("admit", "admit", "admit", "start", "start", "agent", "kubelet")
ODD = (*HONEST, "hide", "file", "deaf", "look")
"""hide: pod-resources does not list whom kubelet admits; file: its checkpoint stays as it is; deaf: no pod-resources
at all; look: a pod has just gone, so that the next look makes kubelet forget ids on their way out."""


class Story:
    """Random pods on one node, and what has become of them."""

    def __init__(self, node, chance, records: bool) -> None:
        self.node = node
        self.chance = chance
        self.pods = {}
        for index in range(chance.randint(2, 5)):
            self.bind(index, record=records or chance.random() < 0.9)
        self.waiting = list(self.pods)
        chance.shuffle(self.waiting)
        self.admitted = []

    def bind(self, index, record):
        chance = self.chance
        containers = []
        for number in range(chance.choice((1, 1, 2))):
            slices = chance.choice(SLICES)
            priority = chance.choice((None, 0, 1))
            containers.append(ask(f"c{number}", mem=slices[0].mem_mib, slices=slices, priority=priority))
        inits = [ask("warm", slices=one(1), sidecar=chance.random() < 0.3)] if chance.random() < 0.3 else []
        seen = chance.random() < 0.7
        pod = self.node.pod(f"p{index}", *containers, plain(), inits=inits, seen=seen, record=record)
        own = {spec.name: slices for spec, slices in (*inits, *containers)} if record else {}
        self.pods[pod.metadata.uid] = (pod, own)

    async def step(self, act):
        kubelet = self.node.kubelet
        if act == "admit" and self.waiting:
            await self.admit(self.waiting.pop())
        elif act == "start" and self.admitted:
            await self.start(self.chance.choice(self.admitted))
        elif act == "agent":
            await self.node.restart_agent()
        elif act == "kubelet":
            await kubelet.restart()
            await kubelet.registered(RESOURCE)
        elif act == "hide":
            kubelet.lists_admitting = not kubelet.lists_admitting
        elif act == "file":
            kubelet.writes_file = not kubelet.writes_file
        elif act == "deaf":
            kubelet.answers_resources = not kubelet.answers_resources
        elif act == "look":
            kubelet._removed = True

    async def admit(self, uid):
        try:
            await self.node.kubelet.admit(self.pods[uid][0])
            self.admitted.append(uid)
        except Rejected:
            self.node.update(self.pods[uid][0], phase="Failed")

    async def start(self, uid):
        """Start all containers; how many did."""
        pod, record = self.pods[uid]
        started = 0
        for name, slices in record.items():
            try:
                answer = await self.node.run(pod, name)
            except NotStarted:
                continue
            if answer is not None:
                self.check(pod, name, slices[0], answer)
                started += 1
        return started

    def check(self, pod, name, own, answer):
        read = self.node.policy(answer)
        assert read["container"] == f"{pod.metadata.uid}/{name}"
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == own.card
        assert answer.envs["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{own.mem_mib}m"
        assert read[own.card] == f"mem_mib {own.mem_mib} core_percent {own.core_percent}"


random_story = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@random_story
@given(st.integers(0, 1 << 30))
async def test_whatever_kubelet_does_no_container_starts_with_another_pods_limits(make_node, seed):
    chance = random.Random(seed)
    node = await make_node(allocate_wait=0.05, verify_wait=0.05)
    story = Story(node, chance, records=False)
    for _ in range(30):
        await story.step(chance.choice(ODD))
    node.kubelet.answers_resources = True
    for uid in story.admitted:
        await story.start(uid)
    await node.close()


@random_story
@given(st.integers(0, 1 << 30))
async def test_with_a_kubelet_as_it_is_every_scheduled_pod_starts_in_any_order(make_node, seed):
    chance = random.Random(seed)
    node = await make_node()
    story = Story(node, chance, records=True)
    for _ in range(20):
        await story.step(chance.choice(HONEST))
    while story.waiting:
        await story.step("admit")
    assert set(story.admitted) == set(story.pods)
    for uid, (_, record) in story.pods.items():
        assert await story.start(uid) == len(record)
    assert node.told.failures == node.told.refusals == []
    assert node.verifier.exchanged == 0
    await node.close()
