"""What goes into the bundle for a machine without network, and how it is unpacked there."""

import importlib.util
import os
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_packages_are_all_that_the_product_imports_once_each_with_hashes(python: str) -> None:
    entries = load("tools/gpu_bundle.py").locked(python, set())
    names = [entry.partition("==")[0] for entry in entries]
    assert {"aiohttp", "lightkube", "httpx2", "msgspec", "grpcio", "numpy", "cryptography", "cffi"} <= set(names)
    assert not {"pytest", "ruff", "hami"} & set(names)
    assert len(names) == len(set(names))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_the_machine_has_can_be_left_out() -> None:
    entries = load("tools/gpu_bundle.py").locked("3.12", {"numpy"})
    assert "numpy" not in {entry.partition("==")[0] for entry in entries}


@pytest.mark.parametrize("xz", [True, False])
def test_archives_are_unpacked_side_by_side_with_xz_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xz: bool
) -> None:
    bundle = load("tests/gpu/pods/bundle.py")
    if not xz:
        monkeypatch.setattr(bundle.shutil, "which", lambda _: None)
    for name in bundle.ARCHIVES:
        with tarfile.open(tmp_path / name, "w:xz") as archive:
            archive.add(Path(__file__), "bin/program")
    bundle.unpack(tmp_path, tmp_path / "into")
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["hami", "lab", "python"]
    assert (tmp_path / "into/lab/bin/program").read_bytes() == Path(__file__).read_bytes()


def test_a_missing_archive_is_named_with_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lab\.tar\.xz is missing: make it with `make gpu-bundle`"):
        load("tests/gpu/pods/bundle.py").unpack(tmp_path, tmp_path / "into")


def test_it_starts_again_with_the_bundles_packages_before_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load("tests/gpu/pods/bundle.py")
    for name in ("hami/site", "python/site", "lab/bin"):
        (tmp_path / name).mkdir(parents=True)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(bundle, "unpack", lambda *_: None)
    monkeypatch.setattr(bundle.os, "execve", lambda _program, _words, environment: started.append(environment))
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    bundle.start_again(tmp_path, tmp_path)
    (environment,) = started
    assert environment["PYTHONPATH"].split(os.pathsep) == [
        str(tmp_path / "hami/site"),
        str(tmp_path / "python/site"),
        "/theirs",
    ]
    assert environment["HAMI_KUBE_BIN"] == str(tmp_path / "lab/bin")
