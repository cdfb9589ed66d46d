"""The register annotation is HAMi v2.10's, and older forms are still read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.card import Card, MigProfile, Placement
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family
from hami.wire import register

NVIDIA = Family("NVIDIA")
GOLDEN = (
    '[{"id":"GPU-00552014-5c87-89ac-b1a6-7b53aa24b0ec","count":10,"devmem":32768,"devcore":100,'
    '"type":"NVIDIA-Tesla V100-PCIE-32GB","mode":"hami-core","health":true},'
    '{"id":"GPU-0fc3eda5-e98b-a25b-5b0d-cf5c855d1448","index":1,"count":10,"devmem":32768,"devcore":100,'
    '"type":"NVIDIA-Tesla V100-PCIE-32GB","numa":1,"mode":"hami-core","health":true}]'
)
MIG = (
    '[{"id":"GPU-a","count":7,"devmem":40960,"devcore":100,"type":"NVIDIA A100-SXM4-40GB","mode":"mig","migProfiles":'
    '[{"name":"1g.5gb","memoryMB":4864,"core":14,"sliceCount":1,"placements":[{"start":0,"size":1},{"start":1,"size":1}]}]}]'
)


def card(name: str, index: int = 0, **changes: object) -> Card:
    given = {"slots": 10, "mem_mib": 32768, "core_percent": 100, "model": "NVIDIA-Tesla V100-PCIE-32GB"} | changes
    return Card(CardId(name), NVIDIA, index=index, **given)  # type: ignore[arg-type]


V100S = (
    card("GPU-00552014-5c87-89ac-b1a6-7b53aa24b0ec"),
    card("GPU-0fc3eda5-e98b-a25b-5b0d-cf5c855d1448", 1, numa=1),
)
A100 = card(
    "GPU-a",
    slots=7,
    mem_mib=40960,
    model="NVIDIA A100-SXM4-40GB",
    mode="mig",
    healthy=False,
    mig_profiles=(MigProfile("1g.5gb", 4864, 14, 1, (Placement(0, 1), Placement(1, 1))),),
)


@pytest.mark.parametrize(("text", "cards"), [(GOLDEN, V100S), (MIG, (A100,)), ("[]", ())])
def test_registers_are_written_and_read_as_hami_does(text: str, cards: tuple[Card, ...]) -> None:
    assert register.encode(cards) == text
    assert register.decode(text, NVIDIA) == cards


cards = st.builds(
    card,
    st.uuids().map(lambda uuid: f"GPU-{uuid}"),
    st.integers(0, 64),
    slots=st.integers(0, 1000),
    mem_mib=st.integers(0, 2**31 - 1),
    core_percent=st.integers(0, 1000),
    numa=st.integers(-1, 8),
    mode=st.sampled_from(["hami-core", "mig", "mps"]),
    healthy=st.booleans(),
    model=st.text(max_size=30),
)


@given(st.lists(cards, max_size=8, unique_by=lambda one: one.id))
def test_registers_survive_the_round_trip_in_index_order(listed: list[Card]) -> None:
    text = register.encode(listed)
    assert register.decode(text, NVIDIA) == tuple(sorted(listed, key=lambda one: (one.index, one.id)))
    assert register.encode(list(reversed(listed))) == text


def test_what_is_absent_is_zero_and_an_absent_health_is_sick() -> None:
    (read,) = register.decode('[{"id":"GPU-a"}]', NVIDIA)
    assert (read.index, read.slots, read.mem_mib, read.numa, read.mode, read.healthy) == (0, 0, 0, 0, "", False)


def test_fields_of_other_releases_and_nulls_are_passed_over() -> None:
    text = '[{"id":"GPU-a","devicepairscore":{},"devicevendor":"NVIDIA","migProfiles":null,"type":null,"health":true}]'
    (read,) = register.decode(text, NVIDIA)
    assert (read.id, read.healthy, read.mig_profiles) == ("GPU-a", True, ())


def test_colon_text_of_seven_and_nine_fields_is_read() -> None:
    text = "GPU-b,10,16384,100,NVIDIA-T4,0,true,1,mig:GPU-a,10,32768,100,NVIDIA-V100,1,false:"
    first, second = register.decode(text, NVIDIA)
    assert (first.id, first.index, first.mode, first.healthy, first.numa) == ("GPU-a", 0, "hami-core", False, 1)
    assert (second.id, second.index, second.mode, second.healthy) == ("GPU-b", 1, "mig", True)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "$"),
        ("{}", "$"),
        ("[{]", "$"),
        ("[5]", "$[0]"),
        ('[{"id":"GPU-a","count":"x"}]', "$[0].count"),
        ('[{"id":"GPU-a"},{"id":"GPU-b","devmem":-1}]', "$[1].devmem"),
        ('[{"id":"GPU-a","devmem":2147483648}]', "$[0].devmem"),
        ('[{"count":1}]', "$[0].id"),
        ('[{"id":"GPU-a"},{"id":"GPU-a"}]', "$[1].id"),
        ("GPU-a,10,x,100,T4,0,true:", "$[0].mem"),
        ("GPU-a,10,1,100,T4,0,maybe:", "$[0].health"),
        ("GPU-a,10,1,100,T4,0,true,-1,mig:", "$[0].index"),
        ("GPU-a,10,1:", "$[0]"),
        ('[{"further":' + "[" * 100_000, "$"),
    ],
)
def test_a_register_with_one_bad_card_is_refused_with_the_place(text: str, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        register.decode(text, NVIDIA)
    assert fault.value.path == path


@given(st.text(max_size=80))
def test_any_text_decodes_or_is_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        register.decode(text, NVIDIA)


def test_pair_scores_survive_the_round_trip() -> None:
    text = '[{"uuid":"GPU-a","score":{"GPU-b":100,"GPU-c":20}},{"uuid":"GPU-b","score":{"GPU-a":100}}]'
    scores = register.decode_scores(text)
    assert scores["GPU-a"] == {"GPU-b": 100, "GPU-c": 20}
    assert register.encode_scores(scores) == text
