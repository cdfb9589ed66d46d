"""A program of the musl C library for containers: built with zig, run by the loader of Debian's package.

musl knows no /etc/ld.so.preload, so nothing is preloaded into it. It cannot load a glibc library either, but for what a
distribution's compatibility layer gives it: `glibc.c` here is as much of one as the simulated driver needs.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hami.lab.binaries import cache_root

HERE = Path(__file__).resolve().parent
MACHINE = platform.machine()
LOADER = f"ld-musl-{MACHINE}.so.1"
INSTALLED = Path("/lib") / LOADER
CACHE = cache_root().parent / "musl" / LOADER
PLACE = "/opt/musl"
"""Where the folder has to be in a container."""
GLIBC = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
"""The name under which a library built for glibc asks for its loader."""
WITHIN_S = 60


class NotHere(Exception):
    """No musl on this machine, and none to be had. Says why."""


@dataclass(frozen=True)
class Musl:
    """A folder for containers to have at `PLACE`, and the loader, which they need at `/lib` under its own name."""

    folder: Path

    @property
    def loader(self) -> Path:
        return self.folder / LOADER

    @property
    def program(self) -> Path:
        """As tests/gpu/pods/escape.c says: ``escape path DRIVER MIB SECONDS``."""
        return self.folder / "escape"


def built(folder: Path) -> Musl:
    """Raises NotHere."""
    made = Musl(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(loader(), made.loader)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{MACHINE}-linux-musl", "-O1"]
    escape = [HERE.parent / "gpu/pods/escape.c", "-DSTATIC", "-dynamic", f"-Wl,-rpath,{PLACE}", "-o", made.program]
    for words in ([HERE / "glibc.c", "-shared", "-fPIC", "-o", folder / GLIBC[MACHINE]], escape):
        subprocess.run([*zig, *words], check=True)
    return made


def loader() -> Path:
    """As installed, as cached, or fetched into the cache. Raises NotHere."""
    for place in (INSTALLED, CACHE):
        if place.exists():
            return place.resolve()
    if not all(shutil.which(name) for name in ("apt-get", "dpkg-deb")):
        raise NotHere(f"there is no {INSTALLED}, and no apt-get to fetch Debian's musl with")
    with tempfile.TemporaryDirectory() as work:
        package = fetched(Path(work))
        subprocess.run(["dpkg-deb", "-x", package, f"{work}/x"], check=True)
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        fresh = CACHE.with_suffix(".new")
        shutil.copy2((Path(work) / "x/lib" / LOADER).resolve(), fresh)
        fresh.replace(CACHE)
    return CACHE


def fetched(work: Path) -> Path:
    """Debian's package, by the lists of this machine, or where it has none by lists of our own. Raises NotHere."""
    (work / "lists/partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}"]
    for words in (["download", "musl"], [*own, "update"], [*own, "download", "musl"]):
        try:
            done = subprocess.run(
                ["apt-get", *words], cwd=work, capture_output=True, text=True, check=False, timeout=WITHIN_S
            )
        except subprocess.TimeoutExpired as fault:
            raise NotHere(f"Debian's musl could not be fetched within {WITHIN_S} s") from fault
        found = next(work.glob("musl_*.deb"), None)
        if found:
            return found
    raise NotHere(f"Debian's musl could not be fetched: {done.stderr.strip()[-300:]}")
