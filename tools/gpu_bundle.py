#!/usr/bin/env python3
"""Pack lab, project and Python dependencies for a machine with a card, root and no network: `make gpu-bundle`.

Three archives, each made anew only when what is in it has changed: `lab.tar.xz` (the lab's programs, static or
self-contained), `python.tar.xz` (the locked dependencies, for the Python of that machine), `hami.tar.xz` (the project,
its compiled parts, and the programs that tenants run). `tests/gpu/pods --bundle FOLDER` there unpacks and runs them.
There are no images in it: the lab makes those from the programs of the machine it runs on.

    tools/gpu_bundle.py [--out build/gpu-bundle] [--python 3.12] [--without numpy,...]
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

from hami.lab import binaries, versions

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
TENANTS = {"probe": "native/probe/*.c", "escape": "tests/gpu/pods/escape.c"}
ELF = "native/src/intercept/elf.c"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "native")
OLD_GLIBC = "x86_64-linux-gnu.2.17"
COMPRESS = "xz -T2 --x86 --lzma2=preset=9e,dict=192MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-bundle")
    parser.add_argument("--python", default="3.12", help="the machine's Python, as 3.12")
    parser.add_argument("--without", default="", help="packages that the machine has, with commas")
    chosen = parser.parse_args()
    without = {name for name in chosen.without.split(",") if name}
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hami-bundle-") as folder:
        stage = Path(folder)
        pack(chosen.out / "lab.tar.xz", lab_key(), lambda: lab(stage / "lab"))
        entries = locked(chosen.python, without)
        pack(
            chosen.out / "python.tar.xz", digest(entries, chosen.python), lambda: python(stage, entries, chosen.python)
        )
        pack(chosen.out / "hami.tar.xz", digest(project_files()), lambda: project(stage / "hami"))
    total = sum(file.stat().st_size for file in chosen.out.glob("*.tar.xz")) / 2**20
    print(f"bundle: {total:.1f} MiB in {chosen.out}")
    return 0


# -- what goes in ------------------------------------------------------------------------


def lab_key() -> str:
    found = binaries.find()
    missing = found.missing(versions.MODULES)
    if missing:
        raise SystemExit(f"not built: {', '.join(module.name for module in missing)}; run `make setup-lab`")
    return digest(sorted({str(path.parent) for path in found.paths.values()}))


def lab(folder: Path) -> Path:
    """Every program, the Kubernetes servers as one binary with several names."""
    binaries.find().collect(folder / "bin")
    return folder


def locked(python: str, without: set[str]) -> list[str]:
    """The lock's entries of everything that scheduler, agent and lab import, as they are for that Python."""
    entries = dict(lock_entries(python))
    return [entries[name] for name in sorted(closure(wanted(), python) - without)]


def wanted() -> list[str]:
    """What `pyproject.toml` asks for scheduler and agent."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["scheduler"], *extras["agent"]]


def closure(wants: Iterable[str], python: str) -> set[str]:
    """All that these need, by what is installed here."""
    found: set[str] = set()
    waiting = list(wants)
    while waiting:
        need = Requirement(waiting.pop())
        name = canonical(need.name)
        if name not in found and applies(need.marker, python):
            found.add(name)
            waiting += distribution(name).requires or ()
    return found


def lock_entries(python: str) -> Iterator[tuple[str, str]]:
    """Names and whole entries (version, hashes), those left out that are for other Pythons."""
    for entry in re.split(r"\n(?=\S)", LOCK.read_text().strip()):
        head = entry.splitlines()[0].rstrip(" \\")
        pinned, _, marker = head.partition(";")
        if not marker or applies(Marker(marker.strip()), python):
            yield canonical(pinned.partition("==")[0]), f"{pinned.strip()} {' '.join(hashes(entry))}"


def hashes(entry: str) -> list[str]:
    return re.findall(r"--hash=\S+", entry)


def applies(marker: Marker | None, python: str) -> bool:
    """Without extras: those that we want are named in `pyproject.toml`."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    return marker is None or marker.evaluate(there)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def python(stage: Path, entries: list[str], version: str) -> Path:
    """The dependencies as a folder for PYTHONPATH; wheels only, each with the lock's hash."""
    folder, wheels = stage / "python", stage / "wheels"
    requirements = stage / "requirements.txt"
    requirements.write_text("\n".join(entries) + "\n")
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", *platforms, f"--python-version={version}"]
    command += ["--implementation=cp", "--dest", str(wheels), "--requirement", str(requirements)]
    subprocess.run(command, check=True)
    for wheel in wheels.iterdir():
        shutil.unpack_archive(wheel, folder / "site", "zip")
    for tests in folder.glob("site/numpy/**/tests"):
        shutil.rmtree(tests)
    return folder


def project_files() -> list[str]:
    """What the third archive is made of, as committed."""
    return [git("rev-parse", f"HEAD:{path}") for path in (*SOURCES, TENANTS["escape"])]


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


def project(folder: Path) -> Path:
    """The project's wheel, built from the commit and not from what is being edited, and what tenants run."""
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="hami-sources-") as place:
        sources = Path(place)
        git("archive", f"--output={sources / 'sources.tar'}", "HEAD", *SOURCES)
        shutil.unpack_archive(sources / "sources.tar", sources)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run([*command, "--wheel-dir", place, place], check=True, env=environment)
        for wheel in sources.glob("*.whl"):
            shutil.unpack_archive(wheel, folder / "site", "zip")
    (folder / "commit").write_text(git("rev-parse", "--short", "HEAD"))
    (folder / "tenants").mkdir()
    command = [sys.executable, "-m", "ziglang", "cc", f"--target={OLD_GLIBC}", "-std=gnu11", "-O1", "-s"]
    command += [f"-I{ROOT / 'native/include'}", f"-I{ROOT / 'native/src'}"]
    for name, source in TENANTS.items():
        files = [*map(str, sorted(ROOT.glob(source))), str(ROOT / ELF), "-o", str(folder / "tenants" / name)]
        subprocess.run([*command, *files, "-ldl", "-lpthread"], check=True)
    return folder


# -- packing -----------------------------------------------------------------------------


def pack(archive: Path, key: str, make: object) -> None:
    """Make the archive unless it was made from the same."""
    stamp = archive.with_suffix(".key")
    if archive.exists() and stamp.exists() and stamp.read_text() == key:
        return
    assert callable(make)
    folder = make()
    print(f"bundle: packing {archive.name}", flush=True)
    names = sorted(path.name for path in folder.iterdir())
    fresh = archive.with_suffix(".partial")
    owner = ["--owner=0", "--group=0", "--sort=name"]
    command = ["tar", "-C", str(folder), "-c", *owner, f"--use-compress-program={COMPRESS}", "-f", str(fresh), *names]
    subprocess.run(command, check=True)
    fresh.replace(archive)
    stamp.write_text(key)
    print(f"bundle: {archive.name} {archive.stat().st_size / 2**20:.1f} MiB", flush=True)


def digest(*parts: Iterable[str] | str) -> str:
    return hashlib.sha256(json.dumps([list(part) for part in parts]).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
