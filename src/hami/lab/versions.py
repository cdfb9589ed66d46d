"""Which programs the lab is made of, and in which versions.

The versions are those that the `go.mod` files under `tools/kube` require: one
place, checked by Go itself. Another Kubernetes release is another folder
`tools/kube/kubernetes-<name>`, chosen with HAMI_KUBE_RELEASE=<name>.
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hami.lab.errors import LabError

SOURCE_VARIABLE = "HAMI_KUBE_SOURCE"
RELEASE_VARIABLE = "HAMI_KUBE_RELEASE"

KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")


@dataclass(frozen=True)
class Module:
    """One Go module under `tools/kube` and what a build of it leaves behind.

    `packages` are what `go build` gets; `.` means the module's own main package,
    whose binary is called `binary`. `links` are other names of that binary.
    `typical_seconds` is a cold build on two cores, for the first progress bar.
    """

    name: str
    requires: str
    packages: tuple[str, ...]
    binary: str | None = None
    links: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    flags: str = "-s -w"
    cgo: bool = False
    typical_seconds: float = 30.0

    @property
    def programs(self) -> tuple[str, ...]:
        own = (self.binary,) if self.binary else tuple(package.rsplit("/", 1)[-1] for package in self.packages)
        return own + self.links

    @property
    def needed(self) -> tuple[str, ...]:
        """The programs that the lab calls: the links, where one binary has several names."""
        return self.links or self.programs


CONTROL_PLANE = (
    Module("etcd", "go.etcd.io/etcd/server/v3", (".",), binary="etcd", typical_seconds=25),
    Module(
        "kubernetes",
        "k8s.io/kubernetes",
        (".",),
        binary="kube",
        links=KUBERNETES_PROGRAMS,
        # Without these the version is empty and clients complain.
        flags=(
            "-s -w -X k8s.io/component-base/version.gitVersion={version}"
            " -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
            " -X k8s.io/client-go/pkg/version.gitVersion={version}"
        ),
        typical_seconds=560,
    ),
)

NODE = (
    Module(
        "containerd",
        "github.com/containerd/containerd/v2",
        tuple(
            f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        ),
        tags=("no_btrfs", "no_devmapper", "no_zfs"),
        flags="-s -w -X github.com/containerd/containerd/v2/version.Version={version}",
        typical_seconds=90,
    ),
    Module(
        "cni",
        "github.com/containernetworking/plugins",
        tuple(
            f"github.com/containernetworking/plugins/plugins/{name}"
            for name in ("ipam/host-local", "main/bridge", "main/loopback")
        ),
        typical_seconds=15,
    ),
    Module(
        "runc",
        "github.com/opencontainers/runc",
        ("github.com/opencontainers/runc", "./lab-runc"),
        tags=("netgo", "osusergo"),
        flags="-s -w -linkmode external -extldflags -static",
        cgo=True,
        typical_seconds=20,
    ),
)

MODULES = CONTROL_PLANE + NODE


def source_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder with the Go modules: HAMI_KUBE_SOURCE, else `tools/kube` of this checkout."""
    named = environment.get(SOURCE_VARIABLE)
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "tools" / "kube"
    if not (folder / "etcd" / "go.mod").is_file():
        raise LabError(
            f"{folder} has no Go modules of the lab; run from a checkout of the project, set {SOURCE_VARIABLE} to its"
            " tools/kube folder, or set HAMI_KUBE_BIN to a folder with the finished programs"
        )
    return folder


def module_folder(module: Module, source: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the module's go.mod is; for Kubernetes the chosen release's."""
    release = environment.get(RELEASE_VARIABLE)
    if module.name != "kubernetes" or not release:
        return source / module.name
    folder = source / f"kubernetes-{release}"
    if not folder.is_dir():
        known = sorted(path.name.removeprefix("kubernetes-") for path in source.glob("kubernetes-*"))
        raise LabError(f"{RELEASE_VARIABLE}={release}: there is no {folder.name}; known releases: {known or 'none'}")
    return folder


def version(module: Module, folder: Path) -> str:
    """The version that go.mod requires, as `v1.34.4`."""
    found = re.search(
        rf"^(?:require\s+|\s+){re.escape(module.requires)}\s+(v\S+)", (folder / "go.mod").read_text(), re.MULTILINE
    )
    if not found:
        raise LabError(f"{folder / 'go.mod'} does not require {module.requires}")
    return found.group(1)


def link_flags(module: Module, found: str) -> str:
    """The linker's flags for a build of this version."""
    major, minor, *_ = found.removeprefix("v").split(".")
    return module.flags.format(version=found, major=major, minor=minor)


def key(module: Module, folder: Path) -> str:
    """A name for a build: it changes with version, sources, flags and platform."""
    found = version(module, folder)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((module.packages, module.links, module.tags, link_flags(module, found), module.cgo)).encode())
    digest.update(f"{platform.system()}/{platform.machine()}".encode())
    return f"{module.name}-{found}-{digest.hexdigest()[:12]}"
