"""The policy file's text is what the library's parser takes, and nothing else leaves the encoder."""

import pytest

from hami.model.errors import Malformed
from hami.wire.policy import CardLimit, CorePolicy, LibraryPolicy, encode

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
