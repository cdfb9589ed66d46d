"""A real node: kubelet, containerd and CNI in namespaces, a cgroup and on a bridge of their own. Needs root.

The node is a PID and mount namespace of this machine (see `nodeinit`). Network
and cgroup hierarchy are the machine's, since the API server listens on loopback.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hami.lab import cgroups, images, net, nodeconfig, ports
from hami.lab.binaries import Binaries
from hami.lab.controlplane import ControlPlane, HttpProbe, Part
from hami.lab.errors import CommandFailed, LabError
from hami.lab.process import ID_VARIABLE, Process

INIT = Path(__file__).with_name("nodeinit.py")
NAMESPACES_SECONDS = 15.0
CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class NodeSpec:
    """What a node of the lab may differ in.

    `kubelet` is merged over the lab's KubeletConfiguration. `host_pids` leaves the node in this machine's PID
    namespace, for a real card whose driver reports the machine's process ids.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    kubelet: Mapping[str, object] = field(default_factory=dict)
    host_pids: bool = False


def obstacle() -> str | None:
    """Why no real kubelet can run here, in words; None when it can."""
    if os.geteuid():
        return "a real kubelet needs root; without it there is only the control plane"
    if not _has_capability(CAP_SYS_ADMIN):
        return "a real kubelet needs CAP_SYS_ADMIN to mount, which this container lacks (docker: --privileged)"
    missing = [program for program in ("unshare", "nsenter", "mount") if not shutil.which(program)]
    if missing:
        return f"a real kubelet needs {', '.join(missing)} (Debian: util-linux, mount)"
    hierarchies = cgroups.hierarchies()
    if not hierarchies or not os.access(hierarchies[0], os.W_OK):
        return "a real kubelet needs a writable cgroup hierarchy under /sys/fs/cgroup"
    return None


def _has_capability(number: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff"))
    return bool(int(effective, 16) >> number & 1)


class Node:
    """One kubelet with its containerd; `kubelet` and `containerd` can be killed and restarted alone."""

    def __init__(
        self, spec: NodeSpec, number: int, control_plane: ControlPlane, binaries: Binaries, identity: str
    ) -> None:
        self.name = spec.name
        self.folder = control_plane.folder / "nodes" / spec.name
        self._spec = spec
        self._number = number
        self._control_plane = control_plane
        self._binaries = binaries
        self._identity = identity
        self._cgroup = cgroups.path_of(identity, spec.name)
        self._network: net.Network | None = None
        self._port, self._health_port = ports.take(), ports.take()
        self._init = self._process("namespaces")
        self.containerd = Part(self._process("containerd"), self._containerd_answers)
        self.kubelet = Part(self._process("kubelet"), HttpProbe(self._health_port, "/healthz"))

    def prepare(self) -> None:
        """All that needs no API server: 1. cgroup, 2. bridge, 3. namespaces, 4. containerd, 5. image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cgroups.make(self._cgroup)
        self._network = net.make(self._identity, self._number)
        self._make_namespaces()
        self._configure_containerd(self._network)
        self.containerd.start()
        self.import_image(images.tools(self.folder / "tools.tar"))

    def join(self) -> None:
        """Start kubelet, which registers the node; it is Ready some time later."""
        if self._network is None:
            raise LabError(f"{self.name} is not prepared")
        self._configure_kubelet(self._network)
        self.kubelet.start(wait=False)

    def stop(self) -> None:
        """End everything on it at once, then remove its bridge and its cgroup."""
        for process in (self._init, self.kubelet.process, self.containerd.process):
            process.kill()
        place = f"{self._identity}/{self.name}"
        cgroups.kill(place)
        cgroups.remove(place)
        if self._network:
            self._network.close()
        ports.give_back(self._port)
        ports.give_back(self._health_port)

    @property
    def init_pid(self) -> int:
        """The first process in the node's namespaces, as this machine numbers it."""
        own = self._init.pid
        if self._spec.host_pids:
            return own
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        if not children:
            raise LabError(f"the namespaces of {self.name} are gone\n{self._init.tail()}")
        return int(children[0])

    @property
    def address(self) -> str:
        """The node's InternalIP, which is this machine's end of the bridge."""
        if self._network is None:
            raise LabError(f"{self.name} is not started")
        return self._network.address

    @property
    def root(self) -> Path:
        """The node's file system as seen from here: `node.root / "var/lib/kubelet/device-plugins"`."""
        return Path(f"/proc/{self.init_pid}/root")

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs a program in the node's namespaces."""
        pids = [] if self._spec.host_pids else ["--pid"]
        return ["nsenter", f"--target={self.init_pid}", "--mount", *pids, "--", *map(str, argv)]

    def run(self, *argv: str | Path, timeout: float = 60.0) -> str:
        """Run a short program on the node and return what it printed."""
        done = subprocess.run(self.command(argv), capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise CommandFailed(f"{self.name}: {' '.join(map(str, argv))}", done.returncode, done.stderr or done.stdout)
        return done.stdout

    def ctr(self, *arguments: str | Path) -> str:
        """containerd's own client, in the namespace that kubelet uses."""
        return self.run(self._binaries["ctr"], f"--address={nodeconfig.CONTAINERD_SOCKET}", "-n=k8s.io", *arguments)

    def import_image(self, archive: Path) -> None:
        """Make an OCI archive (see `images.write`) usable by this node's pods."""
        self.ctr("images", "import", "--local", f"--snapshotter={self._snapshotter()}", archive)

    def _process(self, name: str) -> Process:
        path = ":".join([*map(str, self._binaries.folders()), os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
        log = self._control_plane.folder / "logs" / f"{self.name}-{name}.log"
        return Process(f"{self.name} {name}", [], log, {ID_VARIABLE: self._identity, "PATH": path})

    def _make_namespaces(self) -> None:
        ready = self.folder / "namespaces"
        ready.unlink(missing_ok=True)
        pids = [] if self._spec.host_pids else ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        unshare = ["unshare", "--mount", "--propagation=private", *pids, "--"]
        self._init.command = [*unshare, sys.executable, "-I", "-S", str(INIT), str(self.folder)]
        self._init.start()
        self._init.wait_ready(ready.exists, NAMESPACES_SECONDS)

    def _snapshotter(self) -> str:
        return (self.folder / "namespaces").read_text()

    def _configure_containerd(self, network: net.Network) -> None:
        configuration = nodeconfig.network(self.folder, network.bridge, str(network.subnet))
        (self.folder / "net.d").mkdir(exist_ok=True)
        (self.folder / "net.d" / "10-lab.conflist").write_text(json.dumps(configuration))
        path = self.folder / "containerd.toml"
        path.write_text(nodeconfig.containerd(self.folder, self._binaries.paths, self._snapshotter()))
        self.containerd.process.command = self.command([self._binaries["containerd"], "--config", path])

    def _containerd_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            # By way of /proc: shorter than a socket's path may be, wherever the lab's folder is.
            client.connect(str(self.root / nodeconfig.CONTAINERD_SOCKET.lstrip("/")))
        return True

    def _configure_kubelet(self, network: net.Network) -> None:
        pki = self._control_plane.pki
        serving = pki.server(f"kubelet-{self.name}", [network.address, self.name])
        _, kubeconfig = self._control_plane.identity(f"system:node:{self.name}", ["system:nodes"])
        place = nodeconfig.KubeletPlace(
            self.folder, network.address, self._port, self._health_port, self._cgroup, serving
        )
        path = self.folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(nodeconfig.kubelet(place, self._spec.kubelet)))
        labels = ",".join(f"{key}={value}" for key, value in self._spec.labels.items())
        flags = {
            "config": path,
            "kubeconfig": kubeconfig,
            "hostname-override": self.name,
            "node-ip": network.address,
            "node-labels": labels,
            "cert-dir": self.folder / "pki",
        }
        words = [f"--{flag}={value}" for flag, value in flags.items() if value]
        self.kubelet.process.command = self.command([self._binaries["kubelet"], *words])
