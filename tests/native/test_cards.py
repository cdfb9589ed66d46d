"""Several cards in one container: each launch is paid from the budget of the card it runs on."""

import pytest

from .conftest import Container

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
