"""Where the lab's programs are.

Each is taken as it is found: in HAMI_KUBE_BIN, KUBEBUILDER_ASSETS, then the build cache.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hami.lab import versions
from hami.lab.errors import LabError
from hami.lab.versions import Module

BIN_VARIABLE = "HAMI_KUBE_BIN"
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of finished builds: $XDG_CACHE_HOME/hami/kube, by default below ~/.cache."""
    base = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "hami" / "kube"


@dataclass(frozen=True)
class Binaries:
    """Program names to paths; one instance serves many labs."""

    paths: Mapping[str, Path]

    def __getitem__(self, program: str) -> Path:
        try:
            return self.paths[program]
        except KeyError:
            raise LabError(
                f"{program} is missing; run `python -m hami.lab build`, or set {BIN_VARIABLE} to a folder that has it"
            ) from None

    def missing(self, modules: Iterable[Module]) -> tuple[Module, ...]:
        """The modules of which some program was not found."""
        return tuple(module for module in modules if not all(name in self.paths for name in module.needed))

    def collect(self, into: Path) -> None:
        """Copy every program into one folder, which HAMI_KUBE_BIN can then name (on a machine without network, say)."""
        into.mkdir(parents=True, exist_ok=True)
        for name, path in self.paths.items():
            target = into / name
            target.unlink(missing_ok=True)
            if path.is_symlink():
                target.symlink_to(path.readlink())  # another name of a binary that is copied too
            else:
                shutil.copy2(path, target)

    def folders(self) -> tuple[Path, ...]:
        """Every folder that holds a program, for a PATH."""
        return tuple(dict.fromkeys(path.parent for path in self.paths.values()))


def find(modules: Iterable[Module] = versions.MODULES, environment: Mapping[str, str] = os.environ) -> Binaries:
    """Look for every program, build nothing."""
    paths: dict[str, Path] = {}
    for module in modules:
        built = _built(module, environment)
        for program in module.programs:
            found = _named(program, environment) or (built / program if built else None)
            if found is not None:
                paths[program] = found
    return Binaries(paths)


def _named(program: str, environment: Mapping[str, str]) -> Path | None:
    for variable in (BIN_VARIABLE, ASSETS_VARIABLE):
        folder = environment.get(variable)
        if folder and (Path(folder) / program).is_file():
            return Path(folder).resolve() / program
    return None


def _built(module: Module, environment: Mapping[str, str]) -> Path | None:
    try:
        folder = versions.module_folder(module, versions.source_folder(environment), environment)
    except LabError:
        return None  # an installed package without a checkout: only named folders count
    done = cache_root(environment) / versions.key(module, folder)
    return done if done.is_dir() else None
