"""A URL path to what it names, as kube-apiserver reads it. Pure."""

from urllib.parse import unquote

from msgspec import Struct

from hami.kube.errors import ApiError, Status, from_status

KINDS = {
    "pods": "Pod",
    "nodes": "Node",
    "namespaces": "Namespace",
    "events": "Event",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "leases": "Lease",
    "resourcequotas": "ResourceQuota",
}


class Place(Struct, frozen=True):
    """A collection (`name` None), an object, or a subresource of one."""

    resource: str
    """Group, version and plural: ``v1/pods``, ``coordination.k8s.io/v1/leases``."""
    namespace: str | None = None
    name: str | None = None
    sub: str | None = None

    @property
    def plural(self) -> str:
        return self.resource.rsplit("/", 1)[1]

    @property
    def kind(self) -> str:
        return KINDS.get(self.plural, self.plural.removesuffix("s").capitalize())

    @property
    def api_version(self) -> str:
        return self.resource.rsplit("/", 1)[0]


def parse(path: str) -> Place:
    """Raises `NotFound` for a path that is no resource's."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) >= 3:
        group_version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group_version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        raise refuse(404, "NotFound", "the server could not find the requested resource")
    namespace = None
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise refuse(404, "NotFound", "the server could not find the requested resource")
    plural, name, sub = (*rest, None, None)[:3]
    return Place(f"{group_version}/{plural}", namespace, name, sub)


def refuse(code: int, reason: str, message: str, retry_after: float | None = None) -> ApiError:
    """An error as a client of the server gets it."""
    return from_status(Status(code, reason, message), code, retry_after)
