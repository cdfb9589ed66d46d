"""The product's scheduler in a lab: certificates, `hami scheduler` processes, and the kube-schedulers that ask them.

As installed: each replica is a pair, a `hami scheduler` and a kube-scheduler
beside it that speaks to it with its own client certificate. Tests, benchmarks
and `hami demo` all start it from here.
"""

import http.client
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hami.lab.controlplane import HOST, HttpProbe, Part
from hami.lab.lab import Identity, Lab
from hami.lab.pki import KeyPair
from hami.lab.process import Process

SCHEDULER = "hami-scheduler"
RESOURCES = (
    "nvidia.com/gpu",
    "nvidia.com/gpumem",
    "nvidia.com/gpumem-percentage",
    "nvidia.com/gpucores",
    "nvidia.com/priority",
)


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

    def get(self, path: str) -> tuple[int, str]:
        """A plain GET of /metrics, /healthz or /readyz."""
        connection = http.client.HTTPConnection(HOST, self.metrics_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@dataclass
class Product:
    """The scheduler side in `lab`. `flags` go to every `hami scheduler`, by name without dashes."""

    lab: Lab
    flags: Mapping[str, str] = field(default_factory=dict)
    kube_scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Merged into the KubeSchedulerConfiguration."""
    python: Sequence[str] = (sys.executable,)
    """How the interpreter is called; for profiles."""
    replicas: list[Replica] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serving: KeyPair = self.lab.server_certificate("hami-scheduler-tls")
        self.caller: Identity = self.lab.identity("system:kube-scheduler")

    def start(self, *, ready: bool = True, kube_scheduler: bool = True) -> Replica:
        """One more replica, and its kube-scheduler unless that is turned off."""
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
            **self.flags,
        }
        words = [f"--{flag}={value}" for flag, value in flags.items()]
        process = self.lab.program([*self.python, "-m", "hami", "scheduler", *words], name=name)
        replica = Replica(name, port, metrics_port, process)
        self.replicas.append(replica)
        process.wait_ready(HttpProbe(metrics_port, "/readyz" if ready else "/healthz"), 60)
        if kube_scheduler:
            replica.kube_scheduler = self.lab.start_scheduler(
                self.configuration(replica), name=f"kube-{replica.name}", flags=None
            )
        return replica

    def configuration(self, replica: Replica) -> dict[str, Any]:
        """The KubeSchedulerConfiguration of a replica's kube-scheduler."""
        return {
            "profiles": [{"schedulerName": SCHEDULER}],
            "extenders": [
                {
                    "urlPrefix": replica.url,
                    "filterVerb": "filter",
                    "prioritizeVerb": "prioritize",
                    "bindVerb": "bind",
                    "preemptVerb": "preempt",
                    "weight": 100,
                    "enableHTTPS": True,
                    "nodeCacheCapable": True,
                    "httpTimeout": "30s",
                    "tlsConfig": {
                        "caFile": str(self.serving.authority),
                        "certFile": str(self.caller.pair.certificate),
                        "keyFile": str(self.caller.pair.key),
                    },
                    "managedResources": [{"name": name, "ignoredByScheduler": True} for name in RESOURCES],
                }
            ],
            **self.kube_scheduler,
        }

    def post(self, replica: Replica, path: str, body: bytes, *, certificate: KeyPair | None = None) -> tuple[int, Any]:
        """POST as kube-scheduler does, or with another certificate; the answer decoded where it is JSON."""
        pair = certificate or self.caller.pair
        context = ssl.create_default_context(cafile=str(self.serving.authority))
        context.load_cert_chain(pair.certificate, pair.key)
        connection = http.client.HTTPSConnection(HOST, replica.port, timeout=30, context=context)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text
