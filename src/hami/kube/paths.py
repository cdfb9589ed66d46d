"""URL paths of the resources we touch. Names are quoted, so no name can leave its segment."""

from urllib.parse import quote


def pods(namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """``sub`` is a subresource: ``binding``, ``status``, ``eviction``."""
    return _path("/api/v1", "pods", namespace, name, sub)


def nodes(name: str | None = None, sub: str | None = None) -> str:
    return _path("/api/v1", "nodes", None, name, sub)


def namespaces(name: str | None = None) -> str:
    return _path("/api/v1", "namespaces", None, name)


def events(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/api/v1", "events", namespace, name)


def configmaps(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/api/v1", "configmaps", namespace, name)


def secrets(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/api/v1", "secrets", namespace, name)


def service_accounts(namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    return _path("/api/v1", "serviceaccounts", namespace, name, sub)


def resource_quotas(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/api/v1", "resourcequotas", namespace, name)


def leases(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/apis/coordination.k8s.io/v1", "leases", namespace, name)


def deployments(namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    return _path("/apis/apps/v1", "deployments", namespace, name, sub)


def daemonsets(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/apis/apps/v1", "daemonsets", namespace, name)


def mutating_webhooks(name: str | None = None) -> str:
    return _path("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", None, name)


def validating_policies(name: str | None = None) -> str:
    return _path("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies", None, name)


def resource(group_version: str, plural: str, namespace: str | None = None, name: str | None = None) -> str:
    """Any other resource; ``group_version`` is ``v1`` or ``apps/v1``."""
    root = f"/api/{group_version}" if "/" not in group_version else f"/apis/{group_version}"
    return _path(root, plural, namespace, name)


def _path(root: str, plural: str, namespace: str | None, name: str | None, sub: str | None = None) -> str:
    if sub is not None and name is None:
        raise ValueError(f"subresource {sub!r} of {plural} needs a name")
    place = f"{root}/namespaces/{quote(namespace, safe='')}" if namespace is not None else root
    tail = "".join(f"/{quote(part, safe=':')}" for part in (name, sub) if part is not None)
    return f"{place}/{plural}{tail}"
