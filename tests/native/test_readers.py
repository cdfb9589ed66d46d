"""What agent and library each read, policy files and packets: both take the same, and read the same in them."""

import random
import subprocess
from pathlib import Path

import pytest

from hami.model.errors import Malformed
from hami.wire import broker
from hami.wire.policy import decode

from .conftest import NATIVE, SANITIZERS, Tools

GOOD = (
    (NATIVE / "tests/fuzz/seeds/policy/good").read_bytes(),
    b"version 1\ncontainer e\ncard - mem_mib 1 core_percent 100\nend\n",
    b"version 1\ncontainer e\nbroker /b\ncard U mem_mib all core_percent 1\npriority 1\ncore_policy disable\nend\n",
)
EDITS = 20_000
KNOWN = (
    # What libFuzzer found, or the comparison itself: the library once took all of these, the agent none.
    b"version 1\ncontainer e\ncard - mem_mib8000 core_percent 1\nend\n",
    b"version 1\ncontainer e\ncard - mem_mib 8000 core_percent1\nend\n",
    b"version 1\ncontainer e\ncard - mem_mib 8000 core_percent 0001\nend\n",
    b"version 1\ncontainer e\ncard - mem_mib\t8000 core_percent 1\nend\n",
    b"version 1\ncontainer e\r\ncard - mem_mib 8000 core_percent 1\nend\n",
    b"version 1\ncontainer e\ncard G\x7fU mem_mib 8000 core_percent 1\nend\n",
    b"version 1\ncontainer e\xc3\xa9\ncard - mem_mib 8000 core_percent 1\nend\n",
)


def agents(text: bytes) -> str:
    """In the words of native/tests/policy.c."""
    try:
        policy = decode(text.decode("latin1"))
    except Malformed:
        return "refused"
    words = [policy.container, policy.core_policy.value, policy.priority, int(policy.fail_open), int(policy.strict)]
    words += [policy.ledger, policy.broker or "-"]
    for card in policy.cards:
        words += [card.uuid, -1 if card.mem_mib is None else card.mem_mib, card.core_percent or 100]
    return " ".join(map(str, words))


def librarys(tools: Tools, folder: Path, texts: list[bytes]) -> list[str]:
    program = tools.part("policy", ["src/limits/policy.c", "src/prim/linux.c"], SANITIZERS["asan"])
    (folder / "policies").write_bytes(b"".join(text + b"\0" for text in texts))
    done = subprocess.run([program, folder / "policies"], capture_output=True, check=True)
    return done.stdout.decode("latin1").splitlines()


def edited(dice: random.Random) -> bytes:
    text = bytearray(dice.choice(GOOD))
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(text))
        lines = bytes(text).split(b"\n")
        match dice.randrange(6):
            case 0:
                text[at] = dice.choice(b"\t\r \x01\x7f\xe9/0179-+aZ\n")
            case 1:
                text.insert(at, dice.choice(b" \t0179/\n-+a\x7f\xc3"))
            case 2:
                del text[at]
            case 3:  # a line twice
                text = bytearray(b"\n".join([*lines, dice.choice(lines)]))
            case 4:  # lines in another order
                dice.shuffle(lines)
                text = bytearray(b"\n".join(lines))
            case _:
                word = dice.choice((b"mem_mib", b"core_percent", b"priority", b"GPU-1", b"/l", b"8000"))
                text = bytearray(bytes(text).replace(word, dice.choice((word * 2, word + b"0", word + b" ", b"")), 1))
        text = text or bytearray(b"\n")
    return bytes(text)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_edited_policy_is_read_alike_or_refused_by_both(tools: Tools, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    texts = [*GOOD, *(edited(dice) for _ in range(EDITS))]
    told = librarys(tools, tmp_path, texts)
    assert [(text, one) for text, one in zip(texts, told, strict=True) if one != agents(text)] == []
    assert EDITS / 50 < sum(one != "refused" for one in told) < EDITS / 2


def test_what_is_not_exactly_right_is_refused(tools: Tools, tmp_path: Path) -> None:
    assert librarys(tools, tmp_path, list(KNOWN)) == ["refused"] * len(KNOWN)
    assert [agents(text) for text in KNOWN] == ["refused"] * len(KNOWN)


VECTORS = NATIVE / "tests/broker.vectors"
NUMBERS = (0, 1, 2, 15, 16, 63, 64, 100, 101, 255, 256, 1 << 31, (1 << 32) - 1)
"""Bounds of fields, and what is beyond."""


def taken(packet: bytes) -> bool:
    """By the agent's reader, as if it were the library."""
    try:
        broker.decode(packet, from_library=False)
    except Malformed:
        return False
    return True


def edited_packet(dice: random.Random, good: list[bytes]) -> bytes:
    packet = bytearray(dice.choice(good))
    for _ in range(dice.randint(0, 3)):
        at = dice.randrange(len(packet))
        if dice.random() < 0.4:
            packet[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif dice.random() < 0.9:
            packet[at - at % 4 : at - at % 4 + 4] = dice.choice(NUMBERS).to_bytes(4, "little")
        else:
            packet = packet[: max(at, 1)]
    return bytes(packet)


def test_a_packet_of_the_broker_is_taken_by_both_or_by_neither(tools: Tools, tmp_path: Path) -> None:
    dice = random.Random(1)
    lines = [line.split() for line in VECTORS.read_text().splitlines() if line and not line.startswith("#")]
    good = [bytes.fromhex(packet) for _, packet in lines]
    packets = [*good, *(edited_packet(dice, good) for _ in range(100_000))]
    (tmp_path / "packets").write_text("".join(f"{packet.hex()}\n" for packet in packets))
    program = tools.part("wire", ["src/limits/wire.c"], SANITIZERS["asan"])
    told = subprocess.run([program, "taken", tmp_path / "packets"], capture_output=True, text=True, check=True).stdout
    differ = [packet for packet, one in zip(packets, told.split(), strict=True) if (one == "1") != taken(packet)]
    assert differ == []
    assert 0.1 < told.count("1") / len(packets) < 0.9
