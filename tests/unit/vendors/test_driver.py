from pathlib import Path

import pytest

from hami.model.errors import Bug, Retry
from hami.native import SIM_NVML, library
from hami.sim.cards import Bench
from hami.sim.fixtures import bench, nvml
from hami.vendors.nvidia import nvml as n
from hami.vendors.nvidia.driver import SONAME, Driver, find_library

__all__ = ["bench", "nvml"]


def test_the_library_is_taken_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    assert find_library(tmp_path) is None
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib64"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / SONAME).touch()
        assert find_library(tmp_path) == tmp_path / folder / SONAME


def test_another_library_in_the_same_process_is_a_bug(nvml: Driver, tmp_path: Path) -> None:
    with pytest.raises(Bug, match="cannot be in the same process"):
        Driver(tmp_path / SONAME).open()


@pytest.mark.parametrize(
    ("result", "fault", "retry"),
    [
        ("not-supported", n.NotSupported, Retry.NEVER),
        ("gpu-is-lost", n.CardLost, Retry.LATER),
        ("reset-required", n.CardLost, Retry.LATER),
        ("driver-not-loaded", n.DriverMissing, Retry.LATER),
        ("unknown", n.NvmlFault, Retry.LATER),
        ("no-permission", n.NvmlFault, Retry.LATER),
    ],
)
def test_each_error_of_the_driver_is_a_fault_that_knows_whether_to_retry(
    bench: Bench, nvml: Driver, result: str, fault: type[n.HamiError], retry: Retry
) -> None:
    bench.fail(0, "nvmlDeviceGetName", result)
    with pytest.raises(fault) as caught:
        nvml.name(nvml.device(0))
    assert type(caught.value) is fault
    assert caught.value.retry is retry


def test_an_upgraded_driver_asks_for_a_new_process(bench: Bench, nvml: Driver) -> None:
    bench.path.write_text(bench.path.read_text().replace("\ncard\n", "\nfault nvmlDeviceGetCount 18 0\ncard\n", 1))
    with pytest.raises(n.DriverReplaced, match="restarted") as caught:
        nvml.count()
    assert caught.value.retry is Retry.NEVER


def test_a_driver_without_the_second_version_of_memory_tells_what_the_first_knows(bench: Bench, nvml: Driver) -> None:
    bench.path.write_text(bench.path.read_text().replace("\nend\n", "\nfault nvmlDeviceGetMemoryInfo_v2 13 0\nend\n"))
    memory = nvml.memory(nvml.device(1))
    assert memory.reserved == 0
    assert memory.total == memory.used + memory.free


def test_a_missing_library_is_a_missing_driver(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "from pathlib import Path\nfrom hami.vendors.nvidia.driver import Driver\n"
        "try: Driver(Path('/no/such')).open()\nexcept Exception as fault: print(type(fault).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "DriverMissing", done.stderr


def test_the_simulated_library_is_where_the_package_says() -> None:
    assert library(SIM_NVML).name == SONAME
