"""Where an answer comes from: the scheduler of a live cluster, or a snapshot file.

The scheduler is reached through the API server's service proxy, so no port-forward and no route into the cluster
is needed. The proxy takes the Authorization header away, so the token goes in a header of ours; who has a client
certificate and no token gets one for the account `hami-viewer`, good for ten minutes and for HAMi alone, if he may.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hami.config.files import CLUSTERS, read, text
from hami.config.load import device_config
from hami.config.schema import DeviceConfig
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.config import Target, load
from hami.kube.errors import BadRequest, Forbidden, NotFound, ServerFault
from hami.ledger.filed import Filed, rebuilt
from hami.model.errors import HamiError, Malformed, Unavailable
from hami.model.vendor import Vendor
from hami.scheduler.api.access import AUDIENCE, TOKEN_HEADER
from hami.scheduler.manifests.people import VIEWER
from hami.vendors.table import load as vendors_of
from hami.wire.snapshot import Snapshot, decode

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TOKEN_S = 600
LOOK_UP_S = 3.0
"""For what is asked beside the question, whose answer is there by then."""
NOT_THERE = "HAMi is not installed in this cluster, or its scheduler is elsewhere (--scheduler-service NS/NAME:PORT)"
NO_ENDPOINTS = "no endpoints available"
"""The API server's word for a Service behind which nobody is ready."""
RECORD = b'{"event":'
"""How a record begins, as `hami record` writes it without --snapshot."""


class Unanswerable(Malformed):
    """The scheduler's own words about what was asked: they name it, and the way out."""

    def __init__(self, words: str) -> None:
        super().__init__("the question", None, words)
        self.args = (words,)


class Source(Struct, frozen=True, kw_only=True):
    """What the options say."""

    snapshot: Path | None = None
    kubeconfig: str | None = None
    context: str | None = None
    scheduler: str | None = None
    """URL, in place of the way through the API server."""
    scheduler_ca: Path | None = None
    scheduler_service: str = "hami-system/hami-scheduler:443"
    device_config_file: Path | None = None

    def vendors(self) -> tuple[Vendor, ...]:
        """Of the configuration given, for files and records: a live scheduler has its own."""
        devices = DeviceConfig()
        if self.device_config_file is not None:
            devices = device_config(text(self.device_config_file), str(self.device_config_file))
        return vendors_of(devices)

    def filed(self) -> tuple[Snapshot, Filed]:
        """The cluster in the file. Raises `Malformed`."""
        assert self.snapshot is not None
        body = read(self.snapshot, CLUSTERS)
        if body.startswith(RECORD):
            allowed = "one moment, of `hami record --snapshot`; this is a record"
            raise Malformed("--snapshot", str(self.snapshot), allowed)
        found = decode(body, str(self.snapshot))
        return found, rebuilt(found)

    def kube(self) -> Kube:
        return Kube(self.target())

    def target(self) -> Target:
        return load(self.kubeconfig, self.context)


def options(*, live: bool = True, file: bool = True) -> Callable[[C], C]:
    """The options of a source, handed over as one argument `source`."""
    chosen: list[Callable[[C], C]] = []
    if file:
        chosen.append(click.option("--snapshot", type=FILE, help="Answer from a file of `hami record --snapshot`."))
    chosen += [
        click.option("--kubeconfig", help="Default: $KUBECONFIG, the pod's account, ~/.kube/config."),
        click.option("--context", help="Of the kubeconfig; default: its current one."),
    ]
    if live:
        chosen += [
            click.option(
                "--scheduler", metavar="URL", help="Ask the scheduler at this URL, not through the API server."
            ),
            click.option("--scheduler-ca", type=FILE, help="Authority of its certificate, if not the cluster's."),
            click.option(
                "--scheduler-service",
                metavar="NS/NAME:PORT",
                default="hami-system/hami-scheduler:443",
                show_default=True,
                help="The scheduler's Service, for the way through the API server.",
            ),
        ]
    chosen.append(
        click.option("--device-config-file", type=FILE, help="Resource names, if not HAMi's own (files only).")
    )

    def decorate(function: C) -> C:
        def wrapped(**given: Any) -> Any:
            fields = {name: given.pop(name) for name in Source.__struct_fields__ if name in given}
            return function(source=Source(**fields), **given)

        wrapped.__doc__, wrapped.__name__ = function.__doc__, function.__name__
        if hasattr(function, "__click_params__"):
            wrapped.__click_params__ = function.__click_params__  # type: ignore[attr-defined]
        command: Any = wrapped
        for option in reversed(chosen):
            command = option(command)
        found: C = command
        return found

    return decorate


def asked(source: Source, method: str, path: str, type: type[T], body: object = None) -> T:  # noqa: A002
    """The scheduler's answer. Raises what says who refused, and the way out."""
    try:
        answer = run(_ask(source, method, path, body))
    except (NotFound, BadRequest) as refusal:
        if refusal.message.startswith("services "):
            raise Unavailable(f"{refusal.message}: {NOT_THERE}") from None
        raise Unanswerable(refusal.message) from None
    except ServerFault as fault:
        if NO_ENDPOINTS in fault.message:
            raise Unavailable(f"{fault.message}: none of its schedulers is ready") from None
        raise
    try:
        return msgspec.json.decode(answer, type=type)
    except msgspec.MsgspecError as fault:
        raise Unavailable(
            f"the scheduler's answer to {path} cannot be read ({fault}): is it of another version?"
        ) from fault


def require_namespace(source: Source, name: str) -> None:
    """That the cluster has it: one that is not there has no quota, and a pod would fit that could not be made.

    Raises `Unanswerable`; nothing where the API server may not be asked for it, or does not answer.
    """
    try:
        run(_look_up(source, paths.namespaces(name)))
    except NotFound:
        raise Unanswerable(
            f"there is no namespace {name!r} in this cluster: make it, or name one of `kubectl get namespaces` "
            "(-n, or metadata.namespace of the manifest)"
        ) from None
    except (HamiError, TimeoutError):
        return


async def _look_up(source: Source, path: str) -> None:
    async with asyncio.timeout(LOOK_UP_S), source.kube() as kube:
        await kube.request("GET", path)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _ask(source: Source, method: str, path: str, body: object) -> bytes:
    target = source.target()
    if source.scheduler:
        async with Kube(_direct(target, source)) as kube:
            return await kube.request(method, path, body=body)
    namespace, _, service = source.scheduler_service.partition("/")
    if not namespace or ":" not in service:
        raise Malformed("--scheduler-service", source.scheduler_service, "NAMESPACE/NAME:PORT")
    async with Kube(target) as kube:
        token = await _token(kube, namespace)
    through: Mapping[str, str] = {TOKEN_HEADER: token}
    async with Kube(target, headers=through) as kube:
        return await kube.request(
            method, f"/api/v1/namespaces/{namespace}/services/https:{service}/proxy{path}", body=body
        )


def _direct(target: Target, source: Source) -> Target:
    """The same credentials for another server."""
    assert source.scheduler is not None
    if not source.scheduler.startswith("https://"):
        raise Malformed("--scheduler", source.scheduler, "https://HOST:PORT; a token goes over nothing less")
    cluster = target.cluster
    if source.scheduler_ca is not None:
        authority = str(source.scheduler_ca.resolve())
        cluster = type(cluster)(server=source.scheduler, certificate_auth=authority)
    return replace(target, server=source.scheduler.rstrip("/"), cluster=cluster, tls_server_name=None)


class _TokenStatus(Struct, frozen=True):
    token: str = ""


class _TokenRequest(Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


async def _token(kube: Kube, namespace: str) -> str:
    """Our own token, else one for `hami-viewer`."""
    scheme, _, token = (await kube.proof() or "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token
    spec = {"audiences": [AUDIENCE], "expirationSeconds": TOKEN_S}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    try:
        path = paths.service_accounts(namespace, VIEWER, "token")
        return (await kube.create(path, body, _TokenRequest)).status.token
    except NotFound as refusal:
        raise Unavailable(f"{refusal.message} in {namespace}: {NOT_THERE}") from refusal
    except Forbidden as refusal:
        raise Unavailable(
            "your kubeconfig has a client certificate, which no proxy passes on, and no token can be made for "
            f"{namespace}/{VIEWER} ({refusal.message}); use a kubeconfig with a token, or --scheduler URL"
        ) from refusal
