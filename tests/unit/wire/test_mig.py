"""MIG allocations are HAMi v2.10's, byte for byte."""

import pytest

from hami.model.errors import Malformed
from hami.wire import mig
from hami.wire.mig import MigAllocation, Place

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
