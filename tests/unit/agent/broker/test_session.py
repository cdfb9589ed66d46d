"""Whatever a client sends, and when: hypothesis edits, cuts, repeats and reorders what a good one says."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from hami.agent.broker.door import Peer
from hami.agent.broker.session import BURST, RATE, End, Offence, Session
from hami.wire.broker import MOST_BYTES, Hello, Usage, encode
from hami.wire.policy import MAX_CARDS

LARGE = st.integers(0, (1 << 63) - 1)
hellos = st.builds(Hello, st.integers(0, 1 << 22), LARGE, LARGE, st.text("ab", max_size=31))
usages = st.builds(
    Usage,
    st.integers(0, MAX_CARDS - 1),
    st.tuples(*[st.integers(0, MOST_BYTES // 7)] * 7),
    LARGE,
    LARGE,
    LARGE,
    LARGE,
)
good = st.one_of(hellos, usages, usages).map(encode)


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """A good packet with some bytes changed, or cut, or with more behind it."""
    packet = bytearray(draw(good))
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(packet) - 1), st.integers(0, 255)), max_size=4)):
        packet[at] = value
    return bytes(packet[: draw(st.integers(0, len(packet)))] if draw(st.booleans()) else packet) + draw(
        st.binary(max_size=3)
    )


packets = st.one_of(good, good, good, edited(), st.binary(max_size=200))


def ended(session: Session, packet: bytes, now: float) -> End | None:
    try:
        session.receive(packet, now)
    except Offence as offence:
        return offence.end
    return None


@settings(max_examples=400)
@given(st.lists(st.tuples(st.floats(0, 3), packets), max_size=40))
def test_it_is_understood_or_ends_with_an_offence_and_what_is_kept_is_in_bounds(
    said: list[tuple[float, bytes]],
) -> None:
    session = Session("grant", Peer(7, 0), lambda *_: True, 0.0)
    now = 0.0
    for pause, packet in said:
        now += pause
        end = ended(session, packet, now)
        assert end in (None, End.GARBAGE, End.FLOOD)
        if end is not None:
            break
        assert session.hello is not None  # nothing is taken before it
    assert set(session.usage) == set(session.heard) <= set(range(MAX_CARDS))
    assert all(sum(usage.held_bytes) <= MOST_BYTES for usage in session.usage.values())
    assert all(math.isfinite(rate) and rate >= 0 for rate in session.rates.values())


@given(st.lists(st.sampled_from((0.0, 0.0, 0.002, 0.3)), min_size=220, max_size=600))
def test_no_more_packets_are_read_than_were_promised(pauses: list[float]) -> None:
    session = Session("grant", Peer(7, 0), lambda *_: True, 0.0)
    session.receive(encode(Hello(1, 1, 1, "a")), 0.0)
    now, taken = 0.0, 1
    for pause in pauses:
        now += pause
        end = ended(session, encode(Usage(0, (0,) * 7, 0, 0, 0, 0)), now)
        assert end in (None, End.FLOOD)
        if end is not None:
            break
        taken += 1
    assert taken <= BURST + now * RATE
