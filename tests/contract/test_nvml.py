"""What holds for NVML, the driver's and the simulated one alike.

HAMI_NVML=real asks the driver of this machine; without it, simulated cards.
`tests/gpu/nvml_contract` runs both and prints where they differ.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hami.vendors.nvidia import nvml as n
from hami.vendors.nvidia.driver import Driver, find_library

REAL = os.environ.get("HAMI_NVML") == "real"
MIB = 1 << 20


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    if not REAL:
        yield request.getfixturevalue("nvml")
        return
    made = Driver(find_library(Path("/")))
    made.open()
    yield made
    made.close()


@pytest.fixture
def devices(driver: Driver) -> list[n.Device]:
    return [driver.device(index) for index in range(driver.count())]


@pytest.fixture
def device(devices: list[n.Device]) -> n.Device:
    return devices[0]


def test_versions_are_given(driver: Driver) -> None:
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", driver.driver_version())
    assert driver.nvml_version().endswith(driver.driver_version())
    assert driver.cuda_version() >= (11, 0)


def test_a_closed_library_refuses(driver: Driver) -> None:
    with pytest.raises(n.DriverMissing):
        Driver().count()


def test_it_can_be_opened_twice(driver: Driver) -> None:
    again = Driver(driver._library)
    again.open()
    assert again.count() == driver.count()
    again.close()
    assert driver.count() >= 1


def test_an_index_beyond_the_last_is_a_wrong_argument(driver: Driver) -> None:
    with pytest.raises(n.NvmlFault) as caught:
        driver.device(driver.count())
    assert caught.value.code == 2
    assert str(caught.value) == "NVML: device: Invalid Argument (2)"


def test_an_unknown_uuid_is_not_found(driver: Driver) -> None:
    with pytest.raises(n.NvmlFault) as caught:
        driver.device_by_uuid("GPU-00000000-0000-0000-0000-000000000000")
    assert caught.value.code == 6
    assert "Not Found" in str(caught.value)


def test_a_card_is_found_again_by_its_uuid(driver: Driver, devices: list[n.Device]) -> None:
    uuids = [driver.uuid(device) for device in devices]
    assert len(set(uuids)) == len(uuids)
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) for uuid in uuids)
    assert [driver.uuid(driver.device_by_uuid(uuid)) for uuid in uuids] == uuids


def test_names_minors_and_capabilities_are_plausible(driver: Driver, devices: list[n.Device]) -> None:
    assert all(driver.name(device) for device in devices)
    minors = [driver.minor(device) for device in devices]
    assert len(set(minors)) == len(minors)
    assert all(driver.capability(device) >= (3, 5) for device in devices)


def test_pci_names_are_those_of_sysfs(driver: Driver, devices: list[n.Device]) -> None:
    places = [driver.pci(device) for device in devices]
    assert all(re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.0", place.sysfs_name) for place in places)
    assert all(place.device_id & 0xFFFF == 0x10DE for place in places)
    if REAL:
        assert all((Path("/sys/bus/pci/devices") / place.sysfs_name).exists() for place in places)


def test_memory_adds_up(driver: Driver, device: n.Device) -> None:
    memory = driver.memory(device)
    assert memory.total > 1024 * MIB
    assert memory.reserved > 0
    assert memory.total == memory.reserved + memory.used + memory.free


def test_the_first_version_of_memory_counts_the_reserved_as_used(driver: Driver, device: n.Device) -> None:
    import pynvml

    memory = driver.memory(device)
    old = pynvml.nvmlDeviceGetMemoryInfo(device)
    assert old.total == memory.total
    assert abs(old.used - memory.used - memory.reserved) < 64 * MIB


def test_host_memory_nodes_are_few(driver: Driver, device: n.Device) -> None:
    assert 1 <= len(driver.memory_nodes(device)) <= 8


def test_load_temperature_and_power_are_in_range(driver: Driver, device: n.Device) -> None:
    load = driver.load(device)
    assert 0 <= load.gpu <= 100
    assert 0 <= load.memory <= 100
    assert 0 < driver.temperature(device) < 120
    assert 1000 < driver.power_mw(device) < 2_000_000


def test_processes_have_pids(driver: Driver, device: n.Device) -> None:
    assert all(process.pid > 0 for process in driver.processes(device))


def test_there_are_no_process_samples_of_the_future(driver: Driver, device: n.Device) -> None:
    assert driver.process_loads(device, int((time.time() + 3600) * 1e6)) == ()


def test_process_samples_are_newer_than_asked_for_and_percents(driver: Driver, device: n.Device) -> None:
    since = int((time.time() - 10) * 1e6)
    for one in driver.process_loads(device, since):
        assert one.at_us > since
        assert 0 <= one.sm_percent <= 100


def test_a_sound_card_needs_no_recovery(driver: Driver, device: n.Device) -> None:
    try:
        assert driver.recovery_action(device) == 0
    except n.NotSupported:
        assert REAL  # an older driver
    try:
        rows = driver.remapped_rows(device)
    except n.NotSupported:
        return
    assert not rows.failed
    assert not rows.pending


def test_links_end_somewhere(driver: Driver, device: n.Device) -> None:
    links = driver.nvlinks(device)
    assert len({link.number for link in links}) == len(links)
    assert all(link.version >= 1 for link in links)


def test_pairs_of_cards_have_a_nearest_thing_in_common(driver: Driver, devices: list[n.Device]) -> None:
    for one in devices:
        for other in devices:
            if one is not other:
                assert driver.level(one, other) == driver.level(other, one) > n.Level.BOARD
                assert driver.peer_access(one, other, n.Peer.NVLINK) in (True, False)


def test_mig_profiles_have_places_or_the_card_has_no_mig(driver: Driver, device: n.Device) -> None:
    try:
        driver.mig_mode(device)
    except n.NotSupported:
        assert driver.gpu_instance_profiles(device) == ()
        return
    profiles = driver.gpu_instance_profiles(device)
    assert {profile.slices for profile in profiles} >= {1, 2}
    assert len({profile.id for profile in profiles}) == len(profiles)
    for profile in profiles:
        assert re.fullmatch(r"\d+g\.\d+gb(\+[a-z.]+)?", profile.name)
        assert profile.instances >= 1
        assert len(profile.placements) >= profile.instances or "+me" in profile.name
        assert all(place.start + place.size <= 8 for place in profile.placements)


def test_xids_can_be_watched_and_no_news_is_a_timeout(driver: Driver, device: n.Device) -> None:
    mask = driver.supported_events(device)
    assert mask & n.EVENT_XID
    events = driver.event_set([(device, n.EVENT_XID)])
    began = time.monotonic()
    with pytest.raises(n.Timeout):
        driver.wait(events, 50)
    assert 0.03 < time.monotonic() - began < 20
    driver.free(events)


def test_events_a_card_does_not_support_cannot_be_registered(driver: Driver, device: n.Device) -> None:
    with pytest.raises(n.NotSupported):
        driver.event_set([(device, 1 << 62)])


def test_errors_have_the_drivers_words(driver: Driver) -> None:
    import pynvml

    words = {code: driver._nvml.NVMLError(code) for code in (1, 2, 3, 6, 7, 9, 10, 15)}
    assert {code: str(error) for code, error in words.items()} == {
        1: "Uninitialized",
        2: "Invalid Argument",
        3: "Not Supported",
        6: "Not Found",
        7: "Insufficient Size",
        9: "Driver Not Loaded",
        10: "Timeout",
        15: "GPU is lost",
    }
    fn = pynvml._nvmlGetFunctionPointer("nvmlErrorString")
    import ctypes

    fn.restype = ctypes.c_char_p
    assert {code: fn(code).decode() for code in words} == {code: str(error) for code, error in words.items()}
