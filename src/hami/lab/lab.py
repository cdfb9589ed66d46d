"""The lab's front door: a real Kubernetes in a folder, for as long as a `with` block lasts."""

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from hami.lab import build, ports, versions
from hami.lab.binaries import Binaries
from hami.lab.controlplane import ControlPlane, Flags, Part
from hami.lab.errors import CommandFailed, LabError
from hami.lab.pki import KeyPair
from hami.lab.process import ID_VARIABLE, Process

Manifest = Mapping[str, Any]
T = TypeVar("T")

POLL_SECONDS = 0.1


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
        scheduler: Mapping[str, object] | bool = True,
        apiserver_flags: Flags | None = None,
        controller_flags: Flags | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        self.id = secrets.token_hex(4)
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hami-lab-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binaries = binaries or build.ensure(versions.CONTROL_PLANE)
        self.control_plane = ControlPlane(
            self.folder, self.binaries, self.id, apiserver_flags=apiserver_flags, controller_flags=controller_flags
        )
        self._scheduler = scheduler
        self.programs: list[Process] = []
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

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
        try:
            self.control_plane.start()
            if self._scheduler:
                self.start_scheduler(self._scheduler if isinstance(self._scheduler, Mapping) else {})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for process in reversed(self.programs):
            process.kill()
        self.control_plane.stop()
        for port in self._ports:
            ports.give_back(port)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

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
    ) -> Process:
        """Start a program of ours with KUBECONFIG set and its output in `logs/<name>.log`; it dies with the lab."""
        name = name or Path(argv[0]).name
        environment = {ID_VARIABLE: self.id, "KUBECONFIG": str(kubeconfig or self.kubeconfig), **(env or {})}
        process = Process(name, argv, self.logs / f"{name}.log", environment)
        self.programs.append(process)
        process.start()
        return process

    def keep_logs(self, to: Path) -> Path:
        """Copy the logs where they outlive the lab."""
        return Path(shutil.copytree(self.logs, to, dirs_exist_ok=True))
