"""The product's scheduler in a lab: its objects, `hami scheduler` processes, and the kube-schedulers that ask them.

As installed: rights, webhook and policies from `scheduler.manifests`; each replica
a pair, a `hami scheduler` and a kube-scheduler beside it with a client
certificate of its own. Tests, benchmarks and `hami demo` start it from here.
"""

import http.client
import json
import ssl
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from hami.config.schema import DeviceConfig
from hami.lab.controlplane import HOST, HttpProbe, Part
from hami.lab.lab import Identity, Lab
from hami.lab.pki import KeyPair
from hami.lab.process import Process
from hami.scheduler import manifests
from hami.scheduler.manifests import Site
from hami.vendors.table import load

SCHEDULER = "hami-scheduler"
SIMULATED_AGENTS = "hami-simulated-agents"
READY_S = 60.0


@dataclass
class Replica:
    """One pair. `port` serves extender and webhook, `metrics_port` plain metrics and health."""

    name: str
    port: int
    metrics_port: int
    process: Process
    kube_scheduler: Part | None = None

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def get(self, path: str) -> tuple[int, str]:
        """A plain GET of /metrics, /healthz or /readyz."""
        connection = http.client.HTTPConnection(HOST, self.metrics_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def kill(self) -> None:
        """Both of the pair, as when their machine dies."""
        self.process.kill()
        if self.kube_scheduler:
            self.kube_scheduler.kill()


@dataclass
class Product:
    """The scheduler side in `lab`."""

    lab: Lab
    flags: Mapping[str, str] = field(default_factory=dict)
    """For every `hami scheduler`, by name without dashes."""
    kube_scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Merged into the KubeSchedulerConfiguration."""
    python: Sequence[str] = (sys.executable,)
    """How the interpreter is called; for profiles."""
    replicas: list[Replica] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serving: KeyPair = self.lab.server_certificate("hami-scheduler-tls")
        self.caller: Identity = self.lab.identity("system:kube-scheduler")
        self.site = Site(
            vendors=load(DeviceConfig()),
            ca_bundle=b64encode(self.serving.authority.read_bytes()).decode(),
            extender_ca_file=str(self.serving.authority),
            extender_cert_file=str(self.caller.pair.certificate),
            extender_key_file=str(self.caller.pair.key),
            leader_elect=False,
            record_writers=(SIMULATED_AGENTS,),
        )
        self.agents = self.lab.identity(SIMULATED_AGENTS, ["system:masters"])
        """For simulated agents, one identity for all nodes: it may write records, as the administrator may not."""
        self.account = self.lab.identity(self.site.scheduler_user)
        self._grant()

    def _grant(self) -> None:
        """The namespace, and the rights: each program runs with its own, not as administrator."""
        self.lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.site.namespace}})
        self.lab.apply(manifests.rbac(self.site))

    def install(self) -> None:
        """Webhook and policies; wants a replica that runs. Returns once the API server asks it."""
        self.lab.apply(self._admission())
        self.lab.wait_for("the webhook to be asked", self._asked, READY_S)

    def _asked(self) -> bool:
        """Whether a GPU pod comes out as ours; the API server takes a moment to see a new webhook."""
        container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": {"containers": [container]}}
        made = self.lab.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
        return bool(json.loads(made)["spec"]["schedulerName"] == self.site.scheduler_name)

    def uninstall(self) -> None:
        """Take webhook and policies away again, and stop all replicas."""
        for manifest in self._admission():
            kind = str(manifest["kind"])
            self.lab.kubectl("delete", kind, manifest["metadata"]["name"], "--ignore-not-found")
        for replica in self.replicas:
            replica.kill()

    def _admission(self) -> list[manifests.Manifest]:
        return manifests.admission(replace(self.site, webhook_url=f"{self.replicas[0].url}/webhook"))

    def start(self, *, ready: bool = True, kube_scheduler: bool = True, elected: bool = False) -> Replica:
        """One more replica, and its kube-scheduler. `elected`: the pair leads while it holds kube-scheduler's Lease."""
        name = f"{SCHEDULER}-{len(self.replicas)}"
        port, metrics_port = self.lab.take_port(), self.lab.take_port()
        flags = {
            "http-bind": f"{HOST}:{port}",
            "metrics-bind-address": f"{HOST}:{metrics_port}",
            "cert-file": str(self.serving.certificate),
            "key-file": str(self.serving.key),
            "extender-client-ca": str(self.serving.authority),
            "identity": name,
            "log-format": "text",
            **({"leader-elect": "follow", "leader-elect-resource-name": SCHEDULER} if elected else {}),
            **self.flags,
        }
        words = [f"--{flag}={value}" for flag, value in flags.items()]
        command = [*self.python, "-m", "hami", "scheduler", *words]
        process = self.lab.program(command, name=name, kubeconfig=self.account.kubeconfig)
        replica = Replica(name, port, metrics_port, process)
        self.replicas.append(replica)
        process.wait_ready(HttpProbe(metrics_port, "/readyz" if ready else "/healthz"), READY_S)
        if kube_scheduler:
            part = self.lab.control_plane.scheduler(self.configuration(replica), name=f"kube-{name}")
            if elected:
                part.process.command = [*on_host(name), *part.process.command]
            part.start()
            replica.kube_scheduler = part
        return replica

    def configuration(self, replica: Replica) -> dict[str, Any]:
        """The KubeSchedulerConfiguration of a replica's kube-scheduler."""
        site = replace(self.site, extender_url=replica.url)
        # kube-scheduler runs in our pod, under our account.
        connection = {"kubeconfig": str(self.account.kubeconfig), **self.kube_scheduler.get("clientConnection", {})}
        return {**manifests.scheduler_configuration(site), **self.kube_scheduler, "clientConnection": connection}

    def post(self, replica: Replica, path: str, body: bytes, *, certificate: KeyPair | None = None) -> tuple[int, Any]:
        """POST as kube-scheduler does, or with another certificate; the answer decoded where it is JSON."""
        connection = self.connection(replica, certificate or self.caller.pair)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text

    def connection(self, replica: Replica, certificate: KeyPair | None) -> http.client.HTTPSConnection:
        """A connection that shows `certificate`, or none."""
        context = ssl.create_default_context(cafile=str(self.serving.authority))
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return http.client.HTTPSConnection(HOST, replica.port, timeout=30, context=context)


def on_host(name: str) -> list[str]:
    """Words before a command that give it a host name of its own: kube-scheduler calls itself after its host."""
    rename = 'hostname "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", rename, name]
