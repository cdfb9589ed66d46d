"""The policy file's text is what the library's parser takes, and nothing else leaves the encoder."""

import pytest

from hami.model.errors import Malformed
from hami.wire.policy import CardLimit, CorePolicy, LibraryPolicy, decode, encode

CARD = CardLimit(uuid="GPU-1", mem_mib=8000, core_percent=30)


def test_a_full_policy_is_written_line_by_line() -> None:
    policy = LibraryPolicy(
        container="uid/main",
        cards=(CARD, CardLimit(uuid="GPU-2", mem_mib=None)),
        core_policy=CorePolicy.FORCE,
        priority=0,
        strict=True,
        broker="/usr/local/vgpu/broker/sock",
    )
    assert encode(policy).splitlines() == [
        "version 1",
        "container uid/main",
        "core_policy force",
        "priority 0",
        "fail closed",
        "strict 1",
        "ledger /usr/local/vgpu/ledger",
        "broker /usr/local/vgpu/broker/sock",
        "card GPU-1 mem_mib 8000 core_percent 30",
        "card GPU-2 mem_mib all core_percent 0",
        "end",
    ]


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        (LibraryPolicy(container="a b", cards=(CARD,)), "$.container"),
        (LibraryPolicy(container="a\nend", cards=(CARD,)), "$.container"),
        (LibraryPolicy(container="a", cards=()), "$.cards"),
        (LibraryPolicy(container="a", cards=(CARD, CARD)), "$.cards"),
        (LibraryPolicy(container="a", cards=(CARD,), priority=2), "$.priority"),
        (LibraryPolicy(container="a", cards=(CARD,), ledger="relative"), "$.ledger"),
        (LibraryPolicy(container="a", cards=(CardLimit(uuid="GPU-1", mem_mib=0),)), "$.cards[0].mem_mib"),
        (LibraryPolicy(container="a", cards=(CardLimit("GPU-1", 1, core_percent=101),)), "$.cards[0].core_percent"),
    ],
)
def test_what_the_library_would_refuse_is_refused_here(policy: LibraryPolicy, path: str) -> None:
    with pytest.raises(Malformed) as caught:
        encode(policy)
    assert caught.value.path == path


FULL = LibraryPolicy(
    container="uid/main",
    cards=(CARD, CardLimit(uuid="GPU-2", mem_mib=None)),
    core_policy=CorePolicy.FORCE,
    priority=0,
    strict=True,
    fail_open=True,
    broker="/usr/local/vgpu/broker/sock",
)


@pytest.mark.parametrize("policy", [FULL, LibraryPolicy(container="a", cards=(CARD,))])
def test_what_is_written_can_be_read_back(policy: LibraryPolicy) -> None:
    assert decode(encode(policy)) == policy


def test_a_file_cut_anywhere_is_not_half_read() -> None:
    text = encode(FULL)
    for length in range(len(text)):
        with pytest.raises(Malformed):
            decode(text[:length])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version 1", "version 2"),
        ("priority 0", "priority 2"),
        ("priority 0", "priority 0\npriority 0"),
        ("core_policy force", "core_policy often"),
        ("mem_mib 8000", "mem_mib 0"),
        ("core_percent 30", "core_percent 101"),
        ("strict 1", "stricter 1"),
        ("GPU-2", "GPU-1"),
        ("end", "end\nend"),
        ("ledger /", "ledger "),
    ],
)
def test_a_file_that_the_library_would_refuse_is_refused(old: str, new: str) -> None:
    with pytest.raises(Malformed):
        decode(encode(FULL).replace(old, new, 1))
