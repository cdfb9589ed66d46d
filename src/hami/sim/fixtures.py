"""pytest fixtures: simulated cards, and NVML on top of them. A conftest.py imports those it wants.

Only tests import this module; the product does not need pytest.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hami.native import SIM_NVML, library
from hami.sim.cards import ENVIRONMENT, Bench, Rack, SimCard
from hami.vendors.nvidia.driver import Driver


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two A100-40 on two NUMA nodes; `bench.put` makes other machines of it."""
    made = Bench(tmp_path / "cards.sim", Rack([SimCard(), SimCard(numa=1)]))
    monkeypatch.setenv(ENVIRONMENT, str(made.path))
    return made


@pytest.fixture
def nvml(bench: Bench) -> Iterator[Driver]:
    """NVML, open, on the cards of `bench`."""
    driver = Driver(library(SIM_NVML))
    driver.open()
    yield driver
    driver.close()
