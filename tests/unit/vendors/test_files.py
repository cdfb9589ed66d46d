"""Which of a driver's files are found, under which names, and where the host has them."""

from pathlib import Path

import pytest

from hami.vendors.nvidia.files import HostFile, find

VERSION = "580.159.04"
DEBIAN = "usr/lib/x86_64-linux-gnu"


def install(root: Path, folder: str = DEBIAN) -> Path:
    """A driver with a library under three names, one that is not ours to hand out, and nvidia-smi."""
    place = root / folder
    place.mkdir(parents=True)
    for stem in ("cuda", "nvidia-ml", "nvidia-glcore", "cudart"):
        (place / f"lib{stem}.so.{VERSION}").touch()
    (place / "libcuda.so.1").symlink_to(f"libcuda.so.{VERSION}")
    (place / "libcuda.so").symlink_to("libcuda.so.1")
    (place / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{VERSION}")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/nvidia-smi").touch()
    return place


def test_a_library_is_found_under_all_its_names(tmp_path: Path) -> None:
    install(tmp_path)
    found = find(tmp_path)
    assert found is not None
    assert found.version == VERSION
    names = {one.name: one.host_path for one in found.libraries}
    assert names == {
        "libcuda.so": f"/{DEBIAN}/libcuda.so.{VERSION}",
        "libcuda.so.1": f"/{DEBIAN}/libcuda.so.{VERSION}",
        f"libcuda.so.{VERSION}": f"/{DEBIAN}/libcuda.so.{VERSION}",
        "libnvidia-ml.so.1": f"/{DEBIAN}/libnvidia-ml.so.{VERSION}",
        f"libnvidia-ml.so.{VERSION}": f"/{DEBIAN}/libnvidia-ml.so.{VERSION}",
    }
    assert found.programs == (HostFile("nvidia-smi", "/usr/bin/nvidia-smi"),)


@pytest.mark.parametrize("folder", [DEBIAN, "usr/lib64", "usr/local/nvidia/lib64"])
def test_the_host_has_it_below_its_own_root(tmp_path: Path, folder: str) -> None:
    install(tmp_path, folder)
    found = find(tmp_path, "/run/nvidia/driver")
    assert found is not None
    assert found.libraries[0].host_path == f"/run/nvidia/driver/{folder}/libcuda.so.{VERSION}"


def test_a_script_in_the_path_is_not_taken_for_the_program(tmp_path: Path) -> None:
    install(tmp_path, "usr/local/nvidia/lib64")
    (tmp_path / "usr/local/nvidia/bin").mkdir()
    (tmp_path / "usr/local/nvidia/bin/nvidia-smi").touch()
    found = find(tmp_path)
    assert found is not None
    assert found.programs == (HostFile("nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi"),)


def test_an_absolute_link_means_the_drivers_root_and_not_ours(tmp_path: Path) -> None:
    place = install(tmp_path)
    kept = tmp_path / "etc/alternatives/libcuda"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(f"/{DEBIAN}/libcuda.so.{VERSION}")
    (place / "libcuda.so.1").unlink()
    (place / "libcuda.so.1").symlink_to("/etc/alternatives/libcuda")
    found = find(tmp_path)
    assert found is not None
    assert found.version == VERSION
    assert HostFile("libcuda.so.1", f"/{DEBIAN}/libcuda.so.{VERSION}") in found.libraries


def test_links_that_lead_nowhere_or_round_are_left_out(tmp_path: Path) -> None:
    place = install(tmp_path)
    (place / "libnvidia-cfg.so.1").symlink_to("gone")
    (place / "libnvcuvid.so.1").symlink_to("libnvcuvid.so")
    (place / "libnvcuvid.so").symlink_to("libnvcuvid.so.1")
    found = find(tmp_path)
    assert found is not None
    assert {one.name.partition(".")[0] for one in found.libraries} == {"libcuda", "libnvidia-ml"}


def test_without_a_driver_there_are_none(tmp_path: Path) -> None:
    assert find(tmp_path) is None
