"""What a request means: rows 5.1 to 5.12 of the acceptance table, from the pod as written to the slices planned.

Each pod goes the way of a real one: completed by the vendor as the webhook does, turned into an
ask, fitted on a node.
"""

import contextlib
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.config.load import device_config
from hami.model.ask import Ask, CardAsk, CardRules, ContainerKind, NodePolicy, Policies, Weights
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.model.vendor import Vendor
from hami.plan.exact.fit import fit
from hami.plan.snapshot import CardState, NodeState
from hami.vendors.ask import ask_of, completed, container_requests
from hami.vendors.table import load
from hami.wire.objects import Pod

NVIDIA = Family("NVIDIA")
GPU, MEM, PERCENT, CORES = "nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpumem-percentage", "nvidia.com/gpucores"
Limits = Mapping[str, object]


def vendors(text: str = "") -> tuple[Vendor, ...]:
    return load(device_config(text, "device-config.yaml"))


def pod(*limits: Limits, annotations: Mapping[str, str] | None = None, **spec: object) -> Pod:
    containers = [{"name": f"c{i}", "resources": {"limits": dict(one)}} for i, one in enumerate(limits)]
    metadata = {"name": "p", "namespace": "d", "uid": "u", "annotations": dict(annotations or {})}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": containers, **spec}}, Pod)


def admitted(given: Pod, config: str = "") -> Ask:
    """The ask of a pod that went through the webhook."""
    known = vendors(config)
    changes = [vendor.complete(container_requests(given), given.metadata.annotations or {}) for vendor in known]
    return ask_of(completed(given, changes), known)


def warned(given: Pod, config: str = "") -> Sequence[str]:
    (vendor,) = vendors(config)
    return vendor.complete(container_requests(given), given.metadata.annotations or {}).warnings


def wants(limits: Limits, config: str = "") -> tuple[int, int | None, int | None, int]:
    """Cards, MiB, percent of memory, cores of a one-container pod."""
    ((card,),) = (container.cards for container in admitted(pod(limits), config).containers)
    return card.cards, card.mem_mib, card.mem_percent, card.core_percent


def refused(limits: Limits, config: str = "") -> Malformed:
    with pytest.raises(Malformed) as fault:
        admitted(pod(limits), config)
    return fault.value


def node(cards: int = 1, mem_mib: int = 40960, slots: int = 10) -> NodeState:
    listed = (Card(CardId(f"GPU-{i}"), NVIDIA, "NVIDIA A100-SXM4-40GB", i, slots, mem_mib, 100) for i in range(cards))
    return NodeState(NodeName("n"), 1, tuple(map(CardState, listed)))


def placed(limits: Limits, on: NodeState) -> Plan:
    plan = fit(admitted(pod(limits)), on)
    assert isinstance(plan, Plan), plan.text
    return plan


def unplaced(limits: Limits, on: NodeState) -> Refusal:
    refusal = fit(admitted(pod(limits)), on)
    assert isinstance(refusal, Refusal)
    return refusal


# 5.1 to 5.6: what is asked


@pytest.mark.parametrize(
    ("limits", "config", "wanted"),
    [
        # 5.1 a card and nothing else is a whole card for oneself; with a default size, that size, shared
        ({GPU: 1}, "", (1, None, 100, 100)),
        ({GPU: 1}, "nvidia: {defaultMemory: 4000}", (1, 4000, None, 0)),
        ({GPU: 1}, "nvidia: {defaultMemory: 4000, defaultCores: 30}", (1, 4000, None, 30)),
        ({GPU: 1, CORES: 20}, "", (1, None, 100, 20)),
        # 5.2, 5.3 memory in MiB or as a share
        ({GPU: 1, MEM: 3000}, "", (1, 3000, None, 0)),
        ({GPU: 1, MEM: 3000}, "nvidia: {defaultCores: 30}", (1, 3000, None, 30)),
        ({GPU: 1, PERCENT: 30}, "", (1, None, 30, 0)),
        ({GPU: 1, PERCENT: 100}, "", (1, None, 100, 100)),
        # 5.4 both: MiB count
        ({GPU: 1, MEM: 512, PERCENT: 50}, "", (1, 512, None, 0)),
        # 5.5 a share implies a card
        ({CORES: 30}, "", (1, None, 100, 30)),
        ({MEM: 3000}, "", (1, 3000, None, 0)),
        ({PERCENT: 25}, "", (1, None, 25, 0)),
        ({MEM: 3000}, "nvidia: {defaultGPUNum: 2}", (2, 3000, None, 0)),
        # 5.6 shares are a card's, not the container's
        ({GPU: 2, MEM: 4000}, "", (2, 4000, None, 0)),
        # units
        ({GPU: 1, MEM: 100}, "nvidia: {memoryFactor: 10}", (1, 1000, None, 0)),
        # 5.10 every form of a whole number
        ({GPU: "1", MEM: "5k"}, "", (1, 5000, None, 0)),
        ({GPU: "1", MEM: "8192"}, "", (1, 8192, None, 0)),
        ({GPU: "1000m", MEM: "5e3"}, "", (1, 5000, None, 0)),
        ({GPU: 1, MEM: 4000.0}, "", (1, 4000, None, 0)),
        ({GPU: 1, CORES: 0, MEM: 10}, "", (1, 10, None, 0)),
    ],
)
def test_a_container_asks_what_was_written(limits: Limits, config: str, wanted: tuple[int, ...]) -> None:
    assert wants(limits, config) == wanted


@pytest.mark.parametrize("limits", [{}, {"cpu": 1}, {GPU: 0}, {GPU: 0, MEM: 0, CORES: 0, PERCENT: 0}])
def test_no_card_is_asked_without_one(limits: Limits) -> None:
    assert admitted(pod(limits)).empty


def test_a_default_count_of_zero_means_that_a_share_needs_its_count() -> None:
    fault = refused({MEM: 3000}, "nvidia: {defaultGPUNum: 0}")
    assert str(fault) == (
        "spec.containers[0].resources.limits[nvidia.com/gpu]: is missing: 1 or more where memory or cores are asked"
    )


def test_limits_count_before_requests_and_requests_count_alone() -> None:
    given = pod({GPU: 2, MEM: 1024})
    resources = msgspec.structs.replace(given.spec.containers[0].resources, requests={GPU: 1, PERCENT: 50})
    both = msgspec.structs.replace(given.spec.containers[0], resources=resources)
    alone = msgspec.structs.replace(both, resources=msgspec.structs.replace(resources, limits=None))
    for container, wanted in ((both, (2, 1024, None)), (alone, (1, None, 50))):
        spec = msgspec.structs.replace(given.spec, containers=[container])
        ((card,),) = (one.cards for one in admitted(msgspec.structs.replace(given, spec=spec)).containers)
        assert (card.cards, card.mem_mib, card.mem_percent) == wanted


# 5.2, 5.3, 5.6 to 5.9: what is planned


def test_memory_is_recorded_in_mib_also_where_a_percentage_was_asked() -> None:
    assert placed({GPU: 1, MEM: 3000}, node()).containers[0][0].mem_mib == 3000
    assert placed({GPU: 1, PERCENT: 30}, node()).containers[0][0].mem_mib == 12288
    assert placed({GPU: 1}, node()).containers[0][0].mem_mib == 40960
    assert placed({GPU: 1, PERCENT: 33}, node(mem_mib=1000)).containers[0][0].mem_mib == 330


def test_two_cards_are_two_different_cards_with_the_share_each() -> None:
    ((first, second),) = placed({GPU: 2, MEM: 4000}, node(cards=2)).containers
    assert {first.card, second.card} == {"GPU-0", "GPU-1"}
    assert (first.mem_mib, second.mem_mib) == (4000, 4000)


def test_two_cards_of_a_one_card_node_are_refused_and_the_numbers_told() -> None:
    refusal = unplaced({GPU: 2}, node(cards=1))
    assert refusal.reason is Reason.INSUFFICIENT_CARDS
    assert "2 cards" in refusal.text


def test_a_second_exclusive_pod_does_not_get_the_card() -> None:
    first = placed({GPU: 1, CORES: 100, MEM: 1000}, node())
    refusal = unplaced({GPU: 1, CORES: 100, MEM: 1000}, node().bearing(first.charges))
    assert refusal.reason in (Reason.EXCLUSIVE_CONFLICT, Reason.CORES_EXHAUSTED, Reason.INSUFFICIENT_CORE)
    assert unplaced({GPU: 1, MEM: 1000}, node().bearing(first.charges)).reason is Reason.CORES_EXHAUSTED


def test_the_eleventh_pod_finds_no_slot_on_a_card_split_in_ten() -> None:
    on = node()
    for _ in range(10):
        on = on.bearing(placed({GPU: 1, MEM: 100}, on).charges)
    assert unplaced({GPU: 1, MEM: 100}, on).reason is Reason.SLOTS_EXHAUSTED


# 5.10: what is refused, and how


@pytest.mark.parametrize(
    ("limits", "resource", "value", "allowed"),
    [
        ({GPU: 1, MEM: "5Gi"}, MEM, "5Gi", "MiB as a plain number, 5120"),
        ({GPU: 1, MEM: "16Gi"}, MEM, "16Gi", "MiB as a plain number, 16384"),
        ({GPU: 1, MEM: "1.5Gi"}, MEM, "1.5Gi", "MiB as a plain number, 1536"),
        ({GPU: 1, MEM: "8Ki"}, MEM, "8Ki", "MiB as a plain number"),
        ({GPU: 1, MEM: "1.5"}, MEM, "1.5", "a whole number from 1 to 2147483647"),
        ({GPU: 1, MEM: "-5"}, MEM, "-5", "a whole number from 1 to 2147483647"),
        ({GPU: 1, MEM: "0"}, MEM, "0", "a whole number from 1 to 2147483647"),
        ({GPU: 1, MEM: "16G"}, MEM, "16G", "a whole number from 1 to 2147483647"),
        ({GPU: 1, MEM: "lots"}, MEM, "lots", "a Kubernetes quantity"),
        ({GPU: 1, PERCENT: "0"}, PERCENT, "0", "a whole number from 1 to 100"),
        ({GPU: 1, PERCENT: "101"}, PERCENT, "101", "a whole number from 1 to 100"),
        ({GPU: 1, PERCENT: "-1"}, PERCENT, "-1", "a whole number from 1 to 100"),
        ({GPU: 1, PERCENT: "2147483648"}, PERCENT, "2147483648", "a whole number from 1 to 100"),
        ({GPU: 1, PERCENT: "500m"}, PERCENT, "500m", "a whole number from 1 to 100"),
        ({GPU: 1, CORES: "101"}, CORES, "101", "a whole number from 0 to 100"),
        ({GPU: 1, CORES: "-1"}, CORES, "-1", "a whole number from 0 to 100"),
        ({GPU: "-1"}, GPU, "-1", "a whole number from 0 to 2147483647"),
        ({GPU: "1.5"}, GPU, "1.5", "a whole number from 0 to 2147483647"),
        ({GPU: 0, MEM: 1000}, GPU, "0", "1 or more where memory or cores are asked"),
        ({GPU: 1, "nvidia.com/priority": "2"}, "nvidia.com/priority", "2", "a whole number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_path_value_and_way_out(
    limits: Limits, resource: str, value: str, allowed: str
) -> None:
    fault = refused(limits)
    assert fault.path == f"spec.containers[0].resources.limits[{resource}]"
    assert (fault.value, fault.allowed[: len(allowed)]) == (value, allowed)


def test_a_unit_of_several_mib_is_named_in_the_way_out() -> None:
    assert (
        refused({GPU: 1, MEM: "5Gi"}, "nvidia: {memoryFactor: 256}").allowed == "units of 256 MiB as a plain number, 20"
    )
    assert (
        refused({GPU: 1, MEM: "8388608"}, "nvidia: {memoryFactor: 256}").allowed == "a whole number from 1 to 8388607"
    )


numbers = st.integers(-(2**40), 2**40).map(str) | st.sampled_from(["5k", "1.5", "5Gi", "", "x", "1e3", "-1k", "100m"])


@given(st.dictionaries(st.sampled_from([GPU, MEM, PERCENT, CORES, "cpu"]), numbers, max_size=4))
def test_any_limits_become_an_ask_in_range_or_are_refused(limits: Limits) -> None:
    ask = None
    with contextlib.suppress(Malformed):
        ask = admitted(pod(limits))
    for card in (card for container in (ask.containers if ask else ()) for card in container.cards):
        assert card.cards > 0
        assert 0 <= card.core_percent <= 100
        assert (card.mem_mib is None) != (card.mem_percent is None)
        assert card.mem_on(40960) > 0


def test_a_share_without_its_count_is_refused_when_the_webhook_never_saw_the_pod() -> None:
    with pytest.raises(Malformed, match="the webhook has not seen this pod"):
        ask_of(pod({MEM: 1000}), vendors())


# 5.4, 5.11: what is doubted


def test_memory_both_ways_is_warned_about() -> None:
    assert warned(pod({GPU: 1, MEM: 512, PERCENT: 50})) == (
        "spec.containers[0]: nvidia.com/gpumem and nvidia.com/gpumem-percentage are both set: nvidia.com/gpumem counts",
    )


def test_a_resource_in_an_annotation_never_becomes_a_whole_card_in_silence() -> None:
    annotations = {MEM: "4000"}
    with pytest.raises(Malformed) as fault:
        admitted(pod({GPU: 1}, annotations=annotations))
    assert fault.value.path == "metadata.annotations[nvidia.com/gpumem]"
    assert "resources.limits" in fault.value.allowed
    for limits in ({GPU: 1, MEM: 4000}, {"cpu": 1}):
        (warning,) = warned(pod(limits, annotations=annotations))
        assert "metadata.annotations[nvidia.com/gpumem] has no effect" in warning


def test_a_size_that_only_bytes_would_explain_is_warned_about() -> None:
    (warning,) = warned(pod({GPU: 1, MEM: "5M"}))
    assert "counts MiB" in warning
    assert warned(pod({GPU: 1, MEM: 80000})) == ()


# 5.12: renamed resources

RENAMED = """
nvidia:
  resourceCountName: nvidia.com/vgpu
  resourceMemoryName: example.com/mem
  resourceMemoryPercentageName: example.com/mem-percent
  resourceCoreName: example.com/cores
  resourcePriorityName: example.com/priority
"""


def test_renamed_resources_mean_the_same() -> None:
    assert wants({"nvidia.com/vgpu": 2, "example.com/mem": 4000, "example.com/cores": 30}, RENAMED) == (
        2,
        4000,
        None,
        30,
    )
    assert wants({"nvidia.com/vgpu": 1}, RENAMED) == (1, None, 100, 100)
    assert wants({"example.com/mem-percent": 30}, RENAMED) == (1, None, 30, 0)
    assert refused({"nvidia.com/vgpu": 1, "example.com/mem": "5Gi"}, RENAMED).path.endswith("[example.com/mem]")
    assert admitted(pod({GPU: 1, MEM: 4000}), RENAMED).empty
    with pytest.raises(Malformed):
        admitted(pod({"nvidia.com/vgpu": 1}, annotations={"example.com/mem": "1"}), RENAMED)


# containers, rules, policies


def test_containers_keep_their_place_and_kind_init_first() -> None:
    inits = [
        {"name": "i", "resources": {"limits": {MEM: 10}}},
        {"name": "s", "restartPolicy": "Always", "resources": {"limits": {GPU: 1, MEM: 20}}},
    ]
    ask = admitted(pod({}, {GPU: 1, MEM: 30}, initContainers=inits))
    assert [(one.name, one.kind) for one in ask.containers] == [
        ("i", ContainerKind.INIT),
        ("s", ContainerKind.SIDECAR),
        ("c0", ContainerKind.APP),
        ("c1", ContainerKind.APP),
    ]
    assert [[card.mem_mib for card in one.cards] for one in ask.containers] == [[10], [20], [], [30]]


def test_a_fault_in_an_init_container_names_it() -> None:
    with pytest.raises(Malformed) as fault:
        admitted(pod({}, initContainers=[{"name": "i", "resources": {"limits": {GPU: "x"}}}]))
    assert fault.value.path == "spec.initContainers[0].resources.limits[nvidia.com/gpu]"


def test_annotations_become_rules() -> None:
    annotations = {
        "nvidia.com/use-gputype": " A100, V100,",
        "nvidia.com/nouse-gputype": "1080",
        "nvidia.com/use-gpuuuid": "GPU-a,GPU-b",
        "nvidia.com/nouse-gpuuuid": " ",
        "nvidia.com/numa-bind": "T",
        "nvidia.com/vgpu-mode": "mig,hami-core",
    }
    ((card,),) = (one.cards for one in admitted(pod({GPU: 1}, annotations=annotations)).containers)
    rules = CardRules(("A100", "V100"), ("1080",), ("GPU-a", "GPU-b"), (), ("hami-core", "mig"), numa_bind=True)
    assert card == CardAsk(NVIDIA, 1, 100, mem_percent=100, rules=rules)


def test_a_mode_no_card_has_is_refused_and_an_unclear_numa_bind_doubted() -> None:
    with pytest.raises(Malformed, match="hami-core, mig, mps"):
        admitted(pod({GPU: 1}, annotations={"nvidia.com/vgpu-mode": "time-slice"}))
    (warning,) = warned(pod({GPU: 1}, annotations={"nvidia.com/numa-bind": "yes"}))
    assert "counts as false" in warning


def test_policies_come_from_annotations_before_defaults() -> None:
    defaults = Policies(NodePolicy.SPREAD, ("binpack",))
    plain = ask_of(pod({GPU: 1}), vendors(), defaults)
    assert (plain.node_policy, plain.card_policy) == (NodePolicy.SPREAD, ("binpack",))
    annotations = {
        "hami.io/node-scheduler-policy": "binpack",
        "hami.io/gpu-scheduler-policy": " mutex, nonsense,binpack,mutex ",
        "hami.io/device-scoring-weights": "memory=3, slot=1,core=0",
    }
    ask = ask_of(pod({GPU: 1}, annotations=annotations, priority=7), vendors(), defaults)
    assert (ask.node_policy, ask.card_policy, ask.priority) == (NodePolicy.BINPACK, ("mutex", "binpack"), 7)
    assert ask.weights == Weights(slot=1, core=0, memory=3)


@pytest.mark.parametrize(
    "text",
    ["", "slot=1", "slot=1,core=1,memory=x", "slot=1,core=1,memory=-1", "slot=0,core=0,memory=0",
     "slot=1,core=1,memory=1,slot=1", "slot=1,core=1,mem=1", "slot=1,core=1,memory=1,"],
)  # fmt: skip
def test_weights_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(Malformed, match="device-scoring-weights"):
        admitted(pod({GPU: 1}, annotations={"hami.io/device-scoring-weights": text}))


def test_what_the_webhook_completes_it_completes_once() -> None:
    (vendor,) = vendors()
    for limits in ({MEM: 10}, {GPU: 1}, {CORES: 1}, {GPU: 2, PERCENT: 100}):
        given = pod(limits)
        after = completed(given, [vendor.complete(container_requests(given), {})])
        assert not vendor.complete(container_requests(after), {}).containers[0].limits


def test_cordoned_cards_are_read_with_their_blanks_lost() -> None:
    (vendor,) = vendors()
    assert vendor.cordoned({"hami.io/device-cordon": " GPU-a, ,GPU-b"}) == {"GPU-a", "GPU-b"}
    assert vendor.cordoned({}) == frozenset()
