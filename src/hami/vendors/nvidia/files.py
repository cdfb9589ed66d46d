"""The driver's own files that a program in a container needs, and where they are on this host.

A container brings CUDA's runtime with it; libcuda, NVML and what those load by name must be the kernel module's own
version, so they come from the host. Looks at folders and links only; opens and runs nothing.
"""

import os
from pathlib import Path

from msgspec import Struct

from hami.vendors.nvidia.driver import FOLDERS

LIBRARIES = (
    *("cuda", "cudadebugger", "nvidia-ptxjitcompiler", "nvidia-nvvm", "nvidia-nvvm70", "nvidia-gpucomp"),
    *("nvidia-opencl", "nvidia-pkcs11", "nvidia-pkcs11-openssl3", "nvidia-sandboxutils"),
    *("nvidia-ml", "nvidia-cfg", "nvidia-allocator"),
    *("nvcuvid", "nvidia-encode", "nvidia-opticalflow"),
)
"""Compute, management, video; graphics is left to NVIDIA's toolkit."""
PROGRAMS = ("nvidia-smi", "nvidia-debugdump")
"""Not nvidia-cuda-mps-control: a server of one tenant would launch for others, past their limits."""
PROGRAM_FOLDERS = ("usr/bin", "usr/local/bin")
ANCHOR = "libcuda.so.1"
MOST_LINKS = 16


class HostFile(Struct, frozen=True):
    """A name that programs look for, and the file behind it on the host."""

    name: str
    host_path: str


class DriverFiles(Struct, frozen=True):
    """One installed driver. A library has several names: its soname, the one with the version, often one without."""

    version: str
    libraries: tuple[HostFile, ...]
    programs: tuple[HostFile, ...]


def find(root: Path, host_root: str = "/") -> DriverFiles | None:
    """The driver installed below `root`, which the host knows as `host_root`; None where there is none."""
    folder = next((root / each for each in FOLDERS if _there(root / each / ANCHOR, root)), None)
    if folder is None:
        return None
    version = _behind(folder / ANCHOR, root).name.partition(".so.")[2]
    return DriverFiles(
        version=version,
        libraries=tuple(_host_file(path, root, host_root) for path in _libraries(folder, root)),
        programs=tuple(_host_file(path, root, host_root) for path in _programs(folder, root)),
    )


def _libraries(folder: Path, root: Path) -> list[Path]:
    """Every name of every library that we hand out, dangling links left out."""
    names = {f"lib{stem}" for stem in LIBRARIES}
    found = (Path(entry) for entry in os.scandir(folder))
    return sorted(path for path in found if _stem(path.name) in names and _there(path, root))


def _stem(name: str) -> str:
    stem, dot, _ = name.partition(".so")
    return stem if dot else ""


def _programs(libraries: Path, root: Path) -> list[Path]:
    """Those beside the libraries first: where a driver lies in one folder, /usr/bin may have scripts of the name."""
    folders = (libraries.parent / "bin", *(root / each for each in PROGRAM_FOLDERS))
    places = ([folder / name for folder in folders] for name in PROGRAMS)
    return [path for paths in places if (path := next((one for one in paths if _there(one, root)), None))]


def _host_file(path: Path, root: Path, host_root: str) -> HostFile:
    inside = _behind(path, root).relative_to(root)
    return HostFile(path.name, str(Path(host_root) / inside))


def _there(path: Path, root: Path) -> bool:
    return _behind(path, root).is_file()


def _behind(path: Path, root: Path) -> Path:
    """The file behind a link, all of it below `root`: an absolute link starts there. A ring of links stays itself."""
    at = path
    for _ in range(MOST_LINKS):
        if not at.is_symlink():
            return at
        target = Path(os.path.normpath(at.parent / at.readlink()))
        if not target.is_relative_to(root):
            target = root / target.relative_to("/")
        at = target
    return path
