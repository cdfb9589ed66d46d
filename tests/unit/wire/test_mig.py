"""MIG allocations are HAMi v2.10's, byte for byte."""

import pytest
from msgspec.structs import replace

from hami.model.card import Instance
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family
from hami.model.plan import Slice
from hami.wire import mig
from hami.wire.mig import MigAllocation, Place

NVIDIA = Family("NVIDIA")
GOLDEN = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"2g.10gb","placement":{"start":0,"size":2}},'
    '{"containerIndex":0,"deviceIndex":1,"gpuUUID":"GPU-a","profile":"2g.10gb","placement":{"start":2,"size":2}}]'
)
MADE = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb","placement":{"start":0,"size":1},'
    '"migUUID":"MIG-x","gpuInstanceID":0,"computeInstanceID":0}]'
)


def test_planned_and_made_instances_survive_the_round_trip() -> None:
    planned = mig.decode(GOLDEN)
    assert planned[1] == MigAllocation(0, 1, "GPU-a", "2g.10gb", Place(2, 2))
    assert not planned[0].made
    assert mig.encode(planned) == GOLDEN
    (made,) = mig.decode(MADE)
    assert (made.made, made.gpu_instance_id) == (True, 0)
    assert mig.encode((made,)) == MADE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        GOLDEN.replace('"deviceIndex":1', '"deviceIndex":0'),
        GOLDEN.replace('"size":2', '"size":0'),
        GOLDEN.replace("2g.10gb", ""),
        GOLDEN.replace("GPU-a", ""),
        GOLDEN.replace('"containerIndex":0', '"containerIndex":-1'),
        MADE.replace(',"computeInstanceID":0', ""),
        MADE.replace("MIG-x", ""),
    ],
)
def test_incomplete_or_doubled_entries_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        mig.decode(text)


def test_a_plan_s_instances_go_into_the_record_and_come_back() -> None:
    instance = Instance("2g.10gb", 2, 2)
    whole, part = Slice(CardId("GPU-b"), NVIDIA, 1, 1), Slice(CardId("GPU-a"), NVIDIA, 9856, 29, instance)
    containers = ((whole,), (), (whole, part))
    written = mig.allocations(containers)
    assert [(one.container_index, one.device_index, one.gpu_uuid, one.made) for one in written] == [
        (2, 1, "GPU-a", False)
    ]
    assert mig.encode(written) == (
        '[{"containerIndex":2,"deviceIndex":1,"gpuUUID":"GPU-a","profile":"2g.10gb","placement":{"start":2,"size":2}}]'
    )
    bare = tuple(tuple(replace(one, instance=None) for one in container) for container in containers)
    assert mig.placed(bare, mig.decode(mig.encode(written))) == containers


@pytest.mark.parametrize(("container", "device", "card"), [(1, 0, "GPU-a"), (0, 1, "GPU-a"), (0, 0, "GPU-z")])
def test_an_instance_of_no_slice_is_malformed(container: int, device: int, card: str) -> None:
    entry = mig.MigAllocation(container, device, card, "1g.5gb", mig.Place(0, 1))
    with pytest.raises(Malformed, match="device list"):
        mig.placed(((Slice(CardId("GPU-a"), NVIDIA, 1, 1),),), [entry], "x")
