"""The lab's front door: a real Kubernetes in a folder, for as long as a `with` block lasts."""

import itertools
import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import yaml

from hami.lab import build, ports, sweep, versions
from hami.lab.binaries import Binaries
from hami.lab.controlplane import ControlPlane, Flags, Part
from hami.lab.errors import CommandFailed, LabError
from hami.lab.guard import Guard
from hami.lab.node import Node, NodeSpec, obstacle
from hami.lab.pki import KeyPair
from hami.lab.process import ID_VARIABLE, Process

Manifest = Mapping[str, Any]
T = TypeVar("T")

POLL_SECONDS = 0.1
MARK = ".hami-lab"
NODE_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Identity:
    """A user of the cluster: certificate files and a kubeconfig."""

    user: str
    pair: KeyPair
    kubeconfig: Path


class Lab:
    """One cluster. Start and stop it with `with`, or with `start()` and `stop()`."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        nodes: int | Sequence[NodeSpec] = 0,
        scheduler: Mapping[str, object] | bool = True,
        apiserver_flags: Flags | None = None,
        controller_flags: Flags | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        self.id = secrets.token_hex(4)
        self._temporary = folder is None
        self.folder = (folder or sweep.temporary_folder(self.id)).resolve()
        specs = [NodeSpec(f"node-{count + 1}") for count in range(nodes)] if isinstance(nodes, int) else list(nodes)
        if specs and (reason := obstacle()):
            raise LabError(reason)
        self._binaries = binaries
        self._flags = (apiserver_flags, controller_flags)
        self._specs = specs
        self._scheduler = scheduler
        self._alive: socket.socket | None = None
        self._guard: Guard | None = None
        self._ports: list[int] = []
        self._numbers = itertools.count(1)
        self._control_plane: ControlPlane | None = None
        self.nodes: dict[str, Node] = {}
        self.programs: list[Process] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def guard_pid(self) -> int:
        """The process that sweeps up if this one is killed."""
        if self._guard is None:
            raise LabError("the lab is not started")
        return self._guard.pid

    @property
    def binaries(self) -> Binaries:
        """The programs, built at the first use where they are missing."""
        if self._binaries is None:
            self._binaries = build.ensure(versions.MODULES if self._specs else versions.CONTROL_PLANE)
        return self._binaries

    @property
    def control_plane(self) -> ControlPlane:
        if self._control_plane is None:
            raise LabError("the lab is not started")
        return self._control_plane

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def url(self) -> str:
        return self.control_plane.url

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def start(self) -> None:
        """1. sweep up after labs that were killed, 2. a guard for this one, 3. control plane, 4. nodes."""
        if self._control_plane:
            raise LabError("this lab was started before; make another")
        sweep.sweep_dead()
        self._alive = sweep.alive(self.id)
        self._guard = Guard(self.id)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        """The nodes get their containerd while the API server starts: each waits for its disk and its own caches."""
        self._prepare_folder()
        apiserver_flags, controller_flags = self._flags
        self._control_plane = control_plane = ControlPlane(
            self.folder, self.binaries, self.id, apiserver_flags=apiserver_flags, controller_flags=controller_flags
        )
        with ThreadPoolExecutor(max_workers=4) as threads:
            preparing = [threads.submit(self._make_node(spec).prepare) for spec in self._specs]
            control_plane.start()
            scheduler = self._own_scheduler(control_plane)
            for prepared in preparing:
                prepared.result()
        for node in self.nodes.values():
            node.join()
        if scheduler:
            scheduler.wait_ready()
        for node in self.nodes.values():
            self.wait_node_ready(node)

    def _own_scheduler(self, control_plane: ControlPlane) -> Part | None:
        if not self._scheduler:
            return None
        part = control_plane.scheduler(self._scheduler if isinstance(self._scheduler, Mapping) else {})
        part.start(wait=False)
        return part

    def _make_node(self, spec: NodeSpec) -> Node:
        node = Node(spec, next(self._numbers), self.control_plane, self.binaries, self.id)
        self.nodes[spec.name] = node
        return node

    def _prepare_folder(self) -> None:
        """An empty folder with our mark. One that has the mark is emptied; one with other files is left alone."""
        mark = self.folder / MARK
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not mark.is_file():
                raise LabError(f"{self.folder} has files that are not a lab's; name an empty or a new folder")
            with sweep.alive(mark.read_text().strip()) or _in_use(self.folder):
                shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(self.id)
        except OSError as fault:
            place = "TMPDIR" if self._temporary else "--folder"
            raise LabError(f"{self.folder}: {fault.strerror}; name another place with {place}") from fault

    def stop(self) -> None:
        """End everything and remove what is not in `folder`; a temporary folder goes too. Twice does no harm."""
        for process in reversed(self.programs):
            process.kill()
        for node in self.nodes.values():
            node.stop()
        if self._control_plane:
            self._control_plane.stop()
        for port in self._ports:
            ports.give_back(port)
        left = sweep.sweep(self.id)
        if self._guard:
            self._guard.dismiss()
            self._guard = None
        if self._alive:
            self._alive.close()
            self._alive = None
        if left:
            raise LabError(f"the lab could not remove: {', '.join(left)}")

    def add_node(self, spec: NodeSpec | str, *, wait: bool = True) -> Node:
        """Start one more real node."""
        spec = NodeSpec(spec) if isinstance(spec, str) else spec
        if self.binaries.missing(versions.NODE):
            self._binaries = build.ensure(versions.MODULES)
        node = self._make_node(spec)
        node.prepare()
        node.join()
        if wait:
            self.wait_node_ready(node)
        return node

    def remove_node(self, name: str) -> None:
        """End a node at once and take its object (and so its pods) out of the cluster."""
        self.nodes.pop(name).stop()
        self.kubectl("delete", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={name}", "--force")
        self.kubectl("delete", "node", name, "--ignore-not-found")

    def wait_node_ready(self, node: Node, timeout: float = NODE_READY_SECONDS) -> None:
        """Until its kubelet answers, the node is Ready and the controllers have taken its start-up taints away."""
        node.kubelet.wait_ready(timeout)

        def ready() -> bool:
            found = self.get("node", node.name)
            conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
            return conditions.get("Ready") == "True" and not found["spec"].get("taints")

        self.wait_for(f"node {node.name} ready", ready, timeout)

    def start_scheduler(
        self,
        configuration: Mapping[str, object] | None = None,
        name: str = "kube-scheduler",
        flags: Flags | None = None,
    ) -> Part:
        part = self.control_plane.scheduler(configuration, name, flags)
        part.start()
        return part

    def identity(self, user: str, groups: Sequence[str] = ()) -> Identity:
        pair, path = self.control_plane.identity(user, groups)
        return Identity(user, pair, path)

    def server_certificate(self, name: str, hosts: Sequence[str] = ("127.0.0.1", "localhost")) -> KeyPair:
        """A serving certificate that the cluster's authority signed."""
        return self.control_plane.pki.server(name, hosts)

    def take_port(self) -> int:
        """A free port on loopback, kept for this lab until it stops."""
        self._ports.append(ports.take())
        return self._ports[-1]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl as the administrator and return what it printed; CommandFailed with its error text."""
        command = [str(self.binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise CommandFailed(f"kubectl {' '.join(arguments)}", done.returncode, done.stderr or done.stdout)
        return done.stdout

    def apply(self, manifests: Manifest | Iterable[Manifest] | str) -> str:
        """Apply one object, several, or YAML text (server-side)."""
        if isinstance(manifests, Mapping):
            manifests = [manifests]
        text = manifests if isinstance(manifests, str) else yaml.safe_dump_all([dict(one) for one in manifests])
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object as the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def wait_for(self, what: str, done: Callable[[], T], timeout: float = 30.0) -> T:
        """Ask `done()` until it returns something true, and return that; a fault of the lab counts as not yet."""
        deadline = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = answer = done()
            except (LabError, OSError) as problem:
                last = problem
            else:
                if answer:
                    return answer
            time.sleep(POLL_SECONDS)
        raise LabError(f"{what}: not within {timeout:g} s; last answer: {last!r}")

    def program(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        kubeconfig: Path | None = None,
        node: Node | None = None,
    ) -> Process:
        """Start a program of ours with KUBECONFIG set and its output in `logs/<name>.log`; it dies with the lab.

        With `node` it runs in that node's namespaces, as a DaemonSet with hostPID does on a real one.
        """
        name = name or Path(argv[0]).name
        environment = {ID_VARIABLE: self.id, "KUBECONFIG": str(kubeconfig or self.kubeconfig), **(env or {})}
        process = Process(name, node.command(argv) if node else argv, self.logs / f"{name}.log", environment)
        self.programs.append(process)
        process.start()
        return process

    def keep_logs(self, to: Path) -> Path:
        """Copy the logs where they outlive the lab."""
        return Path(shutil.copytree(self.logs, to, dirs_exist_ok=True))


def _in_use(folder: Path) -> NoReturn:
    raise LabError(f"another lab runs in {folder}; end it first, or name another folder")
