"""The broker's messages: what is written is read back, what is not exactly right is refused, C and Python agree."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.errors import Bug, Malformed
from hami.wire import broker
from hami.wire.broker import Hello, Limit, Message, Reason, Refused, Seen, Usage, Welcome, decode, encode
from hami.wire.policy import CorePolicy

VECTORS = Path(__file__).resolve().parents[3] / "native/tests/broker.vectors"
GOLDEN: dict[str, Message] = {
    "hello": Hello(pid=7, pid_namespace=4026531836, start_ticks=123456789, program="python3"),
    "usage": Usage(
        card=1,
        held_bytes=(1 << 32, 2 << 20, 0, 512, 3, 503316480, 1),
        busy_ns=1_500_000_000,
        launched_ns=987_654_321_012,
        waited_ns=250_000_000,
        refused=3,
    ),
    "welcome": Welcome(host_pid=31415, cards=2, session=1 << 40),
    "limit": Limit(
        card=1,
        generation=5,
        limit_bytes=8000 << 20,
        core_percent=30,
        core_policy=CorePolicy.FORCE,
        priority=0,
        uuid="GPU-5f1c2c3d-0000-4000-8000-000000000001",
        member=255,
        tenant=63,
        last=True,
        mixed=True,
    ),
    "limit_none": Limit(
        card=0,
        generation=1,
        limit_bytes=broker.UNLIMITED,
        core_percent=100,
        core_policy=CorePolicy.DISABLE,
        priority=1,
        uuid="MIG-1",
    ),
    "seen": Seen(card=0, own_bytes=-1, others=4),
    "refused": Refused(Reason.FULL, "this container has 256 processes already"),
}

words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=31)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
pids = st.integers(0, 2**31 - 1)
positive = st.integers(0, 2**63 - 1)
held = st.tuples(*[st.integers(0, 1 << 47)] * 7)
from_library = st.one_of(
    st.builds(Hello, pids, u64, u64, words),
    st.builds(Usage, st.integers(0, 15), held, positive, positive, positive, u64),
)
from_broker = st.one_of(
    st.builds(Welcome, u32, st.integers(1, 16), u64),
    st.builds(
        Limit,
        card=st.integers(0, 15),
        generation=u64,
        limit_bytes=st.integers(1, 2**63 - 1),
        core_percent=st.integers(1, 100),
        core_policy=st.sampled_from(CorePolicy),
        priority=st.integers(0, 1),
        uuid=words,
        member=st.integers(-1, 255),
        tenant=st.integers(0, 63),
        last=st.booleans(),
        mixed=st.booleans(),
    ),
    st.builds(Seen, st.integers(0, 15), st.integers(-1, 1 << 50), u32),
    st.builds(Refused, st.sampled_from(Reason), words),
)


def golden() -> dict[str, bytes]:
    lines = VECTORS.read_text().splitlines()
    return {name: bytes.fromhex(text) for name, text in (line.split() for line in lines if not line.startswith("#"))}


def test_the_golden_vectors_are_what_is_written_and_read() -> None:
    packets = golden()
    assert packets == {name: encode(message) for name, message in GOLDEN.items()}
    for name, message in GOLDEN.items():
        assert decode(packets[name], from_library=isinstance(message, Hello | Usage)) == message


@given(from_library)
def test_what_the_library_says_is_read_back(message: Message) -> None:
    assert decode(encode(message), from_library=True) == message


@given(from_broker)
def test_what_the_broker_says_is_read_back(message: Message) -> None:
    assert decode(encode(message), from_library=False) == message


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_and_nothing_worse(packet: bytes, side: bool) -> None:
    with pytest.raises(Malformed):
        decode(packet, from_library=side)


def test_a_pid_that_no_kernel_gives_is_refused() -> None:
    packet = bytearray(encode(GOLDEN["hello"]))
    packet[8:12] = (2**31).to_bytes(4, "little")
    with pytest.raises(Malformed, match=r"\$\.pid"):
        decode(bytes(packet), from_library=True)


@given(st.one_of(from_library, from_broker), st.integers(0, 160))
def test_a_packet_of_another_length_is_refused(message: Message, length: int) -> None:
    packet = encode(message)
    cut = (packet + bytes(160))[:length]
    if length != len(packet):
        with pytest.raises(Malformed, match=r"\$\.size"):
            decode(cut, from_library=isinstance(message, Hello | Usage))


@pytest.mark.parametrize("name", GOLDEN)
def test_neither_side_takes_the_other_sides_messages(name: str) -> None:
    message = GOLDEN[name]
    with pytest.raises(Malformed, match=r"\$\.kind"):
        decode(encode(message), from_library=not isinstance(message, Hello | Usage))


def test_edits_of_good_packets_are_read_or_refused_and_what_is_read_is_in_bounds() -> None:
    dice = random.Random(4)
    packets = golden()
    read = 0
    for _ in range(20_000):
        name = dice.choice(list(packets))
        packet = bytearray(packets[name])
        for _ in range(dice.randint(1, 4)):
            packet[dice.randrange(len(packet))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        try:
            message = decode(bytes(packet), from_library=name in ("hello", "usage"))
        except Malformed:
            continue
        read += 1
        assert encode(message) == bytes(packet)
        if isinstance(message, Limit):
            assert (1 <= message.core_percent <= 100, message.limit_bytes >= 1, message.member < 256) == (True,) * 3
        if isinstance(message, Usage):
            assert 0 <= min(message.held_bytes) <= sum(message.held_bytes) <= broker.MOST_BYTES
    assert read > 1000


def test_a_text_that_is_no_ascii_or_too_long_is_cut_to_fit() -> None:
    message = decode(encode(Hello(1, 2, 3, "modèle" + "x" * 40)), from_library=True)
    assert message == Hello(1, 2, 3, ("mod?le" + "x" * 40)[:31])


def test_numbers_that_do_not_fit_are_our_own_fault() -> None:
    with pytest.raises(Bug):
        encode(Welcome(host_pid=-1, cards=1, session=0))
