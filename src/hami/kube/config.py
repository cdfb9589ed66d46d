"""Where the API server is and how to prove who we are: kubeconfig or service account.

Reads files and environment once, at start; what must be read again later
(rotating tokens and certificates, plugins) is `kube.credentials`'s part.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User
from lightkube.core.exceptions import ConfigError
from msgspec import Struct

from hami.config.files import text
from hami.config.yamls import document
from hami.model.errors import Malformed

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOME_CONFIG = Path("~/.kube/config")


class Target(Struct, frozen=True):
    """One cluster and one user, chosen."""

    server: str
    """Base URL without a trailing slash; may have a path, as behind Rancher."""
    namespace: str
    user: User
    cluster: Cluster
    folder: Path | None = None
    """What relative file names are relative to: the kubeconfig's own folder."""
    tls_server_name: str | None = None
    proxy: str | None = None

    def file(self, name: str) -> Path:
        """A file of the configuration, absolute."""
        path = Path(name).expanduser()
        return path if path.is_absolute() or self.folder is None else self.folder / path


def load(
    kubeconfig: str | None = None,
    context: str | None = None,
    env: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Target:
    """The first that is there: the file given, $KUBECONFIG, the pod's service account, ~/.kube/config.

    Raises `Malformed` naming the file or the variable when none is usable.
    """
    if kubeconfig:
        return from_files([Path(kubeconfig)], context)
    if env.get("KUBECONFIG"):
        # Like kubectl: several files are one configuration, missing ones are passed over.
        names = [Path(name) for name in env["KUBECONFIG"].split(os.pathsep) if name]
        return from_files([name for name in names if name.expanduser().is_file()] or names[:1], context)
    if env.get("KUBERNETES_SERVICE_HOST") and (service_account / "token").is_file():
        return in_cluster(env, service_account)
    if HOME_CONFIG.expanduser().is_file():
        return from_files([HOME_CONFIG], context)
    raise Malformed(
        "kubeconfig", None, "no --kubeconfig, no $KUBECONFIG, no service account in a pod and no ~/.kube/config"
    )


def in_cluster(env: Mapping[str, str], service_account: Path) -> Target:
    """The service account of the pod we run in. Its token file rotates, so it is kept by name."""
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = service_account / "namespace"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Target(
        server=server,
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        cluster=Cluster(server=server, certificate_auth=str(service_account / "ca.crt")),
        user=User(token_file=str(service_account / "token")),
    )


def from_files(names: list[Path], context: str | None = None) -> Target:
    """A context of one configuration made of these files; the first file that names a thing wins."""
    merged: dict[str, Any] = {"clusters": [], "contexts": [], "users": [], "current-context": None}
    origin: dict[tuple[str, str], Path] = {}
    for name in names:
        path = name.expanduser()
        parsed = _parse(path)
        merged["current-context"] = merged["current-context"] or parsed.get("current-context") or None
        for section in ("clusters", "contexts", "users"):
            for entry in _entries(parsed.get(section), f"kubeconfig {path} {section}"):
                key = (section, entry["name"])
                if key not in origin:
                    origin[key] = path
                    merged[section].append(entry)
    return _select(merged, context, names[0], origin)


def _parse(path: Path) -> dict[str, Any]:
    try:
        told = text(path)
    except Malformed as fault:
        raise Malformed("kubeconfig", fault.path, f"{fault.value}; must be {fault.allowed}") from None
    parsed = document(told, f"kubeconfig {path}")
    if not isinstance(parsed, dict):
        raise Malformed(f"kubeconfig {path}", parsed, "must be a mapping with clusters, contexts and users")
    return parsed


def _entries(section: Any, where: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = section or []
    if not isinstance(found, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in found
    ):
        raise Malformed(where, section, "a list of entries, each with a name")
    return found


def _select(merged: dict[str, Any], context: str | None, first: Path, origin: dict[tuple[str, str], Path]) -> Target:
    try:
        chosen = KubeConfig.from_dict(merged, fname=first).get(context)
    except ConfigError as fault:
        known = ", ".join(sorted(str(entry.get("name")) for entry in merged["contexts"])) or "none"
        raise Malformed(f"kubeconfig {first} current-context", context, f"{fault}; contexts there: {known}") from fault
    except KeyError as fault:
        raise Malformed(f"kubeconfig {first}", fault.args[0], "a context names it, but it is not defined") from fault
    except (msgspec.ValidationError, TypeError) as fault:
        raise Malformed(f"kubeconfig {first}", "(the file)", str(fault)) from fault
    assert chosen is not None  # only with a default, which is not given
    return _target(chosen, merged, origin.get(("clusters", chosen.context.cluster), first).parent)


def _target(chosen: SingleConfig, merged: dict[str, Any], folder: Path) -> Target:
    # lightkube's Cluster leaves these two out; without them some clusters cannot be reached at all.
    raw = next(entry["cluster"] for entry in merged["clusters"] if entry["name"] == chosen.context.cluster)
    return Target(
        server=chosen.cluster.server.rstrip("/"),
        namespace=chosen.namespace,
        user=chosen.user or User(),
        cluster=chosen.cluster,
        folder=folder.absolute(),
        tls_server_name=raw.get("tls-server-name"),
        proxy=raw.get("proxy-url"),
    )


def ssl_context(target: Target) -> ssl.SSLContext | None:
    """TLS as the target says; None for a plain http server.

    Raises `Malformed` when a certificate or key cannot be used.
    """
    if not target.server.startswith("https://"):
        return None
    cluster = target.cluster
    try:
        if cluster.certificate_auth_data:
            context = ssl.create_default_context(cadata=_decoded(cluster.certificate_auth_data).decode())
        elif cluster.certificate_auth:
            context = ssl.create_default_context(cafile=target.file(cluster.certificate_auth))
        else:
            context = ssl.create_default_context()
    except (OSError, ValueError) as fault:  # ssl.SSLError is an OSError
        raise Malformed(
            "kubeconfig certificate-authority", cluster.certificate_auth or "(inline)", str(fault)
        ) from fault
    # Python 3.13 turned this on; the CA of many running clusters lacks the key identifiers it demands.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    load_client_certificate(context, target)
    return context


def load_client_certificate(context: ssl.SSLContext, target: Target) -> None:
    """The user's certificate, from files or inline. On a live context new connections use it."""
    user = target.user
    if user.client_cert_data and user.client_key_data:
        load_inline_certificate(context, _decoded(user.client_cert_data), _decoded(user.client_key_data))
    elif user.client_cert and user.client_key:
        try:
            context.load_cert_chain(target.file(user.client_cert), target.file(user.client_key))
        except OSError as fault:
            raise Malformed("kubeconfig client-certificate", user.client_cert, str(fault)) from fault


def load_inline_certificate(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """OpenSSL through Python reads files only: one private file, gone before this returns."""
    with tempfile.NamedTemporaryFile() as chain:  # created with mode 0600
        chain.write(cert.rstrip(b"\n") + b"\n" + key)
        chain.flush()
        try:
            context.load_cert_chain(chain.name)
        except OSError as fault:
            raise Malformed("kubeconfig client-certificate-data", "(inline)", str(fault)) from fault


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as fault:
        raise Malformed("kubeconfig ...-data", "(inline)", f"must be base64: {fault}") from fault
