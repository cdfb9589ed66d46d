"""A control plane with our admission objects and a webhook that can be switched off: what its tests share."""

import json
import ssl
from base64 import b64encode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from hami.config.schema import DeviceConfig
from hami.lab import Lab
from hami.lab.errors import CommandFailed
from hami.scheduler.manifests import Site
from hami.scheduler.verbs.webhook import WebhookSettings, review
from hami.vendors.table import load

GPU, MEM, CORES = "nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpucores"
RECORD = "hami.io/vgpu-devices-allocated"
VENDORS = load(DeviceConfig())
Json = dict[str, Any]


class Webhook:
    """The webhook behind TLS, to be switched off and on."""

    def __init__(self, lab: Lab) -> None:
        pair = lab.server_certificate("webhook")
        self.ca_bundle = b64encode(pair.authority.read_bytes()).decode()
        self.port = lab.take_port()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/webhook"

    def up(self) -> None:
        if self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _Reviewer)
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
            Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Reviewer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = review(body, WebhookSettings(), VENDORS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        # A kept connection would still be answered after the server is down.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class Cluster:
    """The lab with our objects applied; users act by impersonation, each with the rights their row needs."""

    def __init__(self, lab: Lab, webhook: Webhook, site: Site) -> None:
        self.lab, self.webhook, self.site = lab, webhook, site
        self._count = 0

    def create(self, given: Json, *flags: str) -> Json:
        """The object as it was stored."""
        done = self.lab.kubectl("create", "-o", "json", "--validate=false", "-f", "-", *flags, stdin=json.dumps(given))
        created: Json = json.loads(done)
        return created

    def refused(self, given: Json, *flags: str) -> str:
        with pytest.raises(CommandFailed) as fault:
            self.create(given, *flags)
        return str(fault.value)

    def name(self) -> str:
        self._count += 1
        return f"p{self._count}"

    def pod(self, limits: Mapping[str, str] | None = None, **further: Any) -> Json:
        metadata = {"name": self.name(), "namespace": further.pop("namespace", "default")}
        metadata |= {key: further.pop(key) for key in ("annotations", "labels") if key in further}
        resources = {"limits": dict(limits), "requests": {}} if limits else {}
        container = {"name": "c", "image": "x", "resources": resources, **further.pop("container", {})}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **further}}


def wait_enforced(cluster: Cluster) -> None:
    """The API server takes a moment to see new admission objects."""

    def enforced() -> bool:
        probe = cluster.pod({GPU: "1"}), cluster.pod(annotations={RECORD: "x"})
        return all("enforced" not in _try(cluster, one) for one in probe)

    def _try(cluster: Cluster, given: Json) -> str:
        try:
            cluster.create(given)
        except CommandFailed as fault:
            return str(fault)
        cluster.lab.kubectl("delete", "pod", given["metadata"]["name"], "--now")
        return "not yet enforced"

    cluster.lab.wait_for("admission objects enforced", enforced, 60)
