"""The annotations are HAMi v2.10's, byte for byte."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.config.schema import DeviceConfig
from hami.model.ask import PodRef
from hami.model.errors import Bug, Malformed
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Plan, Slice
from hami.vendors.table import load
from hami.wire import annotations
from hami.wire.annotations import decode_devices, decode_handshake, encode_devices, encode_handshake, is_record


def piece(card: str, mem: int, cores: int, family: str = "NVIDIA") -> Slice:
    return Slice(CardId(card), Family(family), mem, cores)


A = piece("GPU-a", 3000, 30)
GOLDEN = {
    "GPU-a,NVIDIA,3000,30:;": ((A,),),
    "GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,3000,30:;": ((A, piece("GPU-b", 3000, 30)),),
    "GPU-a,NVIDIA,3000,0:;GPU-a,NVIDIA,5000,0:;": ((piece("GPU-a", 3000, 0),), (piece("GPU-a", 5000, 0),)),
    "GPU-a,NVIDIA,3000,30:;;GPU-a,NVIDIA,5000,0:;": ((A,), (), (piece("GPU-a", 5000, 0),)),
    "GPU-a,NVIDIA,20000,0:;GPU-a,NVIDIA,10000,0:;": ((piece("GPU-a", 20000, 0),), (piece("GPU-a", 10000, 0),)),
    ";GPU-a,NVIDIA,3000,30:;": ((), (A,)),
    ";;": ((), ()),
    ";": ((),),
    "": (),
}
slices = st.builds(
    piece,
    st.from_regex(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){1,3}", fullmatch=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 100),
)


@pytest.mark.parametrize(("text", "containers"), GOLDEN.items())
def test_device_lists_are_written_and_read_as_hami_does(text: str, containers: tuple[tuple[Slice, ...], ...]) -> None:
    assert encode_devices(containers) == text
    assert decode_devices(text) == containers


@given(st.lists(st.lists(slices, max_size=4).map(tuple), max_size=5).map(tuple))
def test_device_lists_survive_the_round_trip(containers: tuple[tuple[Slice, ...], ...]) -> None:
    assert decode_devices(encode_devices(containers), Family("NVIDIA")) == containers


def test_older_and_sloppier_forms_are_read() -> None:
    assert decode_devices("GPU-a,NVIDIA,3000,30") == ((A,),)
    assert decode_devices("GPU-a,NVIDIA,3000,30,further,fields:;") == ((A,),)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("GPU-a,NVIDIA,3000:;", "$[0][0]"),
        ("garbage;", "$[0][0]"),
        (",NVIDIA,3000,30:;", "$[0][0]"),
        (";GPU-a,NVIDIA,x,30:;", "$[1][0].memory"),
        ("GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,3000,-1:;", "$[0][1].cores"),
        ("GPU-a,NVIDIA,2147483648,0:;", "$[0][0].memory"),
        ("GPU-a,NVIDIA,٣,0:;", "$[0][0].memory"),
        ("GPU-a,DCU,3000,0:;", "$[0][0]"),
    ],
)
def test_a_list_that_cannot_be_read_is_a_fault_and_never_an_empty_list(text: str, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        decode_devices(text, Family("NVIDIA"))
    assert fault.value.path == path


@given(st.text(alphabet="GPU-a,:;0123456789NVIDIA \n", max_size=60))
def test_any_text_decodes_or_is_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        decode_devices(text)


@pytest.mark.parametrize("card", ["", "a,b", "a:b", "a;b", "a b"])
def test_a_card_whose_name_would_break_the_list_is_never_written(card: str) -> None:
    with pytest.raises(Bug):
        encode_devices([[piece(card, 1, 1)]])


def test_a_bound_pod_carries_hamis_records() -> None:
    plan = Plan(PodRef("d", "p", PodUid("u")), NodeName("node67-4v100"), ((), (A,)), (), generation=1)
    assert annotations.records(plan, load(DeviceConfig()), 1705054796.9) == {
        "hami.io/vgpu-node": "node67-4v100",
        "hami.io/vgpu-time": "1705054796",
        "hami.io/bind-time": "1705054796",
        "hami.io/bind-phase": "allocating",
        "hami.io/vgpu-devices-to-allocate": ";GPU-a,NVIDIA,3000,30:;",
        "hami.io/vgpu-devices-allocated": ";GPU-a,NVIDIA,3000,30:;",
    }


def test_records_are_told_from_what_users_may_write() -> None:
    forbidden = [
        "vgpu-node",
        "vgpu-time",
        "bind-time",
        "bind-phase",
        "vgpu-mig-allocations",
        "kunlun-allocated",
        "nominated",
    ]
    forbidden += ["vgpu-devices-to-allocate", "dcu-devices-allocated", "Ascend910B3-devices-to-allocate"]
    assert all(is_record(f"hami.io/{key}") for key in forbidden)
    allowed = ["hami.io/gpu-scheduler-policy", "hami.io/use-Ascend910B-uuid", "nvidia.com/vgpu-node", "vgpu-node"]
    assert not any(is_record(key) for key in allowed)


def test_handshakes_are_written_in_hamis_layout_and_read_back() -> None:
    assert encode_handshake("Requesting", 1787293239) == "Requesting_2026-08-21 06:20:39"
    assert decode_handshake("Requesting_2026-08-21 06:20:39") == ("Requesting", 1787293239)
    for text in ("", "Requesting", "Requesting_", "_2026-08-21 06:20:39", "Requesting_yesterday"):
        with pytest.raises(Malformed):
            decode_handshake(text)


def test_comma_lists_lose_their_blanks() -> None:
    assert annotations.words(" A100 , ,V100,") == ("A100", "V100")
    assert annotations.words(None) == ()
