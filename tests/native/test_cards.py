"""Several cards in one container: a launch is paid from the budget of the card it runs on; whose limit is whose."""

import pytest

from hami.sim.cards import parse
from hami.wire.policy import CardLimit, LibraryPolicy, encode

from .conftest import Container
from .test_vgpu import policy
from .test_ways_round import tried

pytestmark = pytest.mark.realtime

LIMITS = [("10", "90", 4000), ("90", "30", 4000)]
"""Of the first card and of the second; launches a second that the tighter one lets through: kernels of 0.1 ms,
one on the first, three on the second."""


def limits(first: str, second: str) -> dict[str, str]:
    names = {"CUDA_DEVICE_SM_LIMIT_0": first, "CUDA_DEVICE_SM_LIMIT_1": second}
    return {**names, "GPU_CORE_UTILIZATION_POLICY": "force", "PROBE_ROUNDS_A_NS": "1", "LIBCUDA_LOG_LEVEL": "2"}


@pytest.mark.parametrize(("first", "second", "rate"), LIMITS)
def test_a_thread_that_changes_cards_with_each_launch_pays_each_for_its_own(
    container: Container, first: str, second: str, rate: int
) -> None:
    told = container.probe("cards", 3, 100_000, **limits(first, second))
    assert told["rate"] == pytest.approx(rate, rel=0.15)
    assert told["stderr"] == ""


@pytest.mark.parametrize(("first", "second", "rate"), LIMITS)
def test_a_context_that_changes_past_all_hooks_is_found_out(
    container: Container, first: str, second: str, rate: int
) -> None:
    """As soon as a price is looked up; from then on each launch asks the driver which card it is for."""
    told = container.probe("cards", 3, 100_000, "unseen", **limits(first, second))
    assert told["rate"] == pytest.approx(rate, rel=0.15)
    assert "changed unseen" in str(told["stderr"])


SEEN = """
cuda = ctypes.CDLL("libcuda.so.1")
print(cuda.cuInit(0), end=" ")
context, total = c_void_p(), c_size_t()
for card in map(int, sys.argv[1:]):
    if cuda.cuDevicePrimaryCtxRetain(byref(context), card) == 0 == cuda.cuCtxSetCurrent(context):
        assert cuda.cuDeviceTotalMem_v2(byref(total), card) == 0
        print(total.value // MIB, linear(cuda), end=" ")
    else:
        print("none", end=" ")
"""


def test_a_container_that_shows_more_cards_than_the_library_holds_has_none(container: Container) -> None:
    """Not sixteen with limits and one without. On the simulated driver the seventeenth would give its memory."""
    container.bench.put(parse(f"cards: [{', '.join(['{model: A100-40}'] * 17)}]"))
    assert tried(container, SEEN, 16, LD_PRELOAD="").split() == ["0", "40336", "15360"]
    assert tried(container, SEEN, 16) == "802 none"
    told = str(container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g")["stderr"])
    assert "this container shows more than 16" in told  # before the seventeenth was written anywhere
    assert tried(container, SEEN, 15, CUDA_VISIBLE_DEVICES=",".join(map(str, range(16)))) == "0 4096 3584"


def test_cards_that_cannot_be_counted_are_no_cards_without_a_limit(container: Container) -> None:
    assert tried(container, SEEN, 0, FAKE_CUDA_FAILS="cuDeviceGetCount") == "802 none"


def held_to(container: Container, cards: dict[str, int], *places: int, **env: str) -> str:
    """What a program has of the cards that it counts so, where those of these UUIDs have so many MiB."""
    limits = tuple(CardLimit(uuid, mib) for uuid, mib in cards.items())
    with policy(container, encode(LibraryPolicy(container="a", cards=limits, ledger=str(container.ledger)))):
        return tried(container, SEEN, *places, **env)


@pytest.mark.parametrize("by", ["number", "uuid"])
def test_a_card_keeps_its_limit_whatever_number_a_program_gives_it(container: Container, by: str) -> None:
    """CUDA_VISIBLE_DEVICES is the program's own; the limit is of the card."""
    cards = {container.bench.uuid(0): 2048, container.bench.uuid(1): 1024}
    names = {"number": ["1", "0"], "uuid": [container.bench.uuid(1)[:12], container.bench.uuid(0)]}[by]
    assert held_to(container, cards, 0, 1, CUDA_VISIBLE_DEVICES=",".join(names)) == "0 1024 512 2048 1536"


MIG = "MIG-41b35ea5-5d1c-5a3e-9d0c-0123456789ab"


def test_a_mig_device_is_held_to_the_limit_of_its_own_uuid_and_has_nothing_by_its_cards(container: Container) -> None:
    """Which the driver tells, too, to those that ask as programs did before there was MIG."""
    seen = {"CUDA_VISIBLE_DEVICES": MIG, "FAKE_CUDA_MIG": f"{MIG} 1 9856"}
    assert tried(container, SEEN, 0, LD_PRELOAD="", **seen) == "0 9856 9216"
    # NVML knows nothing of it here, so its context is charged by the word of the driver.
    assert held_to(container, {MIG: 2048}, 0, **seen) == "0 2048 1536"
    assert held_to(container, {container.bench.uuid(1): 2048}, 0, **seen) == "0 none"
    assert tried(container, SEEN, 0, **seen) == "0 4096 3584"
