"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, each to be started, killed and restarted alone."""

import http.client
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from hami.lab import kubeconfig, ports
from hami.lab.binaries import Binaries
from hami.lab.pki import KeyPair, Pki
from hami.lab.process import ID_VARIABLE, Probe, Process

HOST = "127.0.0.1"
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_HOSTS = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", HOST, "10.96.0.1")
READY_SECONDS = 90.0
# etcd and the API server wait for open watches when asked to end; nothing here is worth that.
GRACE_SECONDS = 0.5

Flags = Mapping[str, str | None]


class Part:
    """A server of the control plane: its process, and how one knows that it serves."""

    def __init__(self, process: Process, probe: Probe) -> None:
        self.process = process
        self._probe = probe

    @property
    def name(self) -> str:
        return self.process.name

    def start(self, *, wait: bool = True) -> None:
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        self.process.wait_ready(self._probe, timeout)

    def stop(self) -> None:
        self.process.stop(GRACE_SECONDS)

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()

    def restart(self, *, wait: bool = True) -> None:
        """Stop it and start it again, on the same port with the same state."""
        self.process.stop(GRACE_SECONDS)
        self.start(wait=wait)


class HttpProbe:
    """True when a plain GET answers 200."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self._port, timeout=2)

    def __call__(self) -> bool:
        connection = self._connect()
        try:
            connection.request("GET", self._path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except http.client.HTTPException:
            return False
        finally:
            connection.close()


class HttpsProbe(HttpProbe):
    """The same over TLS. `pair` is our client certificate; without one the server is not checked (it made its own)."""

    def __init__(self, port: int, path: str, pair: KeyPair | None = None) -> None:
        super().__init__(port, path)
        if pair:
            self._context = ssl.create_default_context(cafile=str(pair.authority))
            self._context.load_cert_chain(pair.certificate, pair.key)
        else:
            self._context = ssl._create_unverified_context()  # noqa: S323 - loopback, self-made certificate

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(HOST, self._port, timeout=2, context=self._context)


class ControlPlane:
    """The four parts in one folder, on ports of their own.

    `apiserver_flags` and `controller_flags` replace or add flags by name without
    dashes; None as the value drops a flag.
    """

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        identity: str,
        *,
        apiserver_flags: Flags | None = None,
        controller_flags: Flags | None = None,
    ) -> None:
        self.folder = folder
        self._binaries = binaries
        self._identity = identity
        self.pki = Pki(folder / "pki")
        self._ports: list[int] = []
        self._etcd_port, self._api_port = self._port(), self._port()
        self.url = f"https://{HOST}:{self._api_port}"
        self.admin = self.pki.client("admin", ["system:masters"])
        self.kubeconfig = self.write_kubeconfig("admin", self.admin)
        self._service_account = self.pki.service_account()
        self.etcd = self._etcd()
        self.apiserver = self._apiserver(apiserver_flags or {})
        self.controller_manager = self._controller_manager(controller_flags or {})
        self.schedulers: dict[str, Part] = {}
        self._scheduler_ports: dict[str, int] = {}

    def write_kubeconfig(self, user: str, pair: KeyPair) -> Path:
        path = self.folder / "kubeconfig" / f"{user.replace(':', '-')}.yaml"
        return kubeconfig.write(path, self.url, pair, user=user)

    def identity(self, user: str, groups: Sequence[str] = ()) -> tuple[KeyPair, Path]:
        """A client certificate and a kubeconfig for any user."""
        pair = self.pki.client(user, groups)
        return pair, self.write_kubeconfig(user, pair)

    def start(self) -> None:
        """1. etcd and the API server together (it waits for etcd), 2. the controllers."""
        self.etcd.start(wait=False)
        self.apiserver.start(wait=False)
        self.etcd.wait_ready()
        self.apiserver.wait_ready()
        self.controller_manager.start(wait=False)

    def parts(self) -> list[Part]:
        """In the order of their start."""
        return [self.etcd, self.apiserver, self.controller_manager, *self.schedulers.values()]

    def stop(self) -> None:
        """Nothing outlives the lab, so nothing needs a farewell: kill, last first."""
        for part in reversed(self.parts()):
            part.kill()
        for port in self._ports:
            ports.give_back(port)

    def scheduler(
        self,
        configuration: Mapping[str, object] | None = None,
        name: str = "kube-scheduler",
        flags: Flags | None = None,
    ) -> Part:
        """A kube-scheduler with this KubeSchedulerConfiguration, not started. The same name replaces a stopped one.

        Where the configuration names no kubeconfig or leader election, the lab's own kubeconfig and none are filled in.
        """
        port = self._scheduler_ports.setdefault(name, 0) or self._port()
        self._scheduler_ports[name] = port
        path = self.folder / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self._complete(configuration or {}), sort_keys=False))
        path.chmod(0o600)
        arguments = {"config": str(path), "bind-address": HOST, "secure-port": str(port)}
        process = self._process("kube-scheduler", arguments, flags or {}, name)
        self.schedulers[name] = Part(process, HttpsProbe(port, "/healthz"))
        return self.schedulers[name]

    def _complete(self, configuration: Mapping[str, object]) -> dict[str, object]:
        complete: dict[str, object] = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            **configuration,
        }
        connection = complete.get("clientConnection")
        given = dict(connection) if isinstance(connection, Mapping) else {}
        _, own = self.identity("system:kube-scheduler")
        complete["clientConnection"] = {"kubeconfig": str(own), **given}
        complete.setdefault("leaderElection", {"leaderElect": False})
        return complete

    def _etcd(self) -> Part:
        peer = self._port()
        client_url, peer_url = f"http://{HOST}:{self._etcd_port}", f"http://{HOST}:{peer}"
        arguments = {
            "name": "lab",
            "data-dir": str(self.folder / "etcd"),
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"lab={peer_url}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        return Part(self._process("etcd", arguments), HttpProbe(self._etcd_port, "/health"))

    def _apiserver(self, flags: Flags) -> Part:
        serving = self.pki.server("kube-apiserver", SERVICE_HOSTS)
        kubelet_client = self.pki.client("kube-apiserver-kubelet-client", ["system:masters"])
        private, public = self._service_account
        arguments = {
            "etcd-servers": f"http://{HOST}:{self._etcd_port}",
            "bind-address": HOST,
            "advertise-address": HOST,
            "secure-port": str(self._api_port),
            "tls-cert-file": str(serving.certificate),
            "tls-private-key-file": str(serving.key),
            "client-ca-file": str(serving.authority),
            "kubelet-client-certificate": str(kubelet_client.certificate),
            "kubelet-client-key": str(kubelet_client.key),
            "kubelet-certificate-authority": str(serving.authority),
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": str(public),
            "service-account-signing-key-file": str(private),
            "service-cluster-ip-range": SERVICE_RANGE,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "endpoint-reconciler-type": "none",
            "allow-privileged": "true",
            # A killed API server must not take a minute to say good-bye.
            "shutdown-delay-duration": "0s",
        }
        process = self._process("kube-apiserver", arguments, flags)
        return Part(process, HttpsProbe(self._api_port, "/readyz", self.admin))

    def _controller_manager(self, flags: Flags) -> Part:
        port = self._port()
        # One powerful user instead of an account a controller: those are fetched while it runs, and when the API
        # server has just come back and still refuses everything, the controller manager ends itself over it. On a
        # real cluster kubelet starts it again; here nobody would.
        _, own = self.identity("system:kube-controller-manager", ["system:masters"])
        arguments = {
            "kubeconfig": str(own),
            "bind-address": HOST,
            "secure-port": str(port),
            "leader-elect": "false",
            "root-ca-file": str(self.pki.authority),
            "service-account-private-key-file": str(self._service_account[0]),
        }
        process = self._process("kube-controller-manager", arguments, flags)
        return Part(process, HttpsProbe(port, "/healthz"))

    def _process(
        self, program: str, arguments: Mapping[str, str], flags: Flags | None = None, name: str | None = None
    ) -> Process:
        merged: dict[str, str | None] = {**arguments, **(flags or {})}
        words = [f"--{flag}={value}" for flag, value in merged.items() if value is not None]
        environment = {ID_VARIABLE: self._identity, **_no_proxy()}
        name = name or program
        log = self.folder / "logs" / f"{name}.log"
        return Process(name, [self._binaries[program], *words], log, environment)

    def _port(self) -> int:
        port = ports.take()
        self._ports.append(port)
        return port


def _no_proxy() -> dict[str, str]:
    """No proxy between parts on loopback, whatever the machine's settings are."""
    return {"NO_PROXY": f"{HOST},localhost,10.0.0.0/8", "no_proxy": f"{HOST},localhost,10.0.0.0/8"}
