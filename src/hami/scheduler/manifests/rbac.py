"""Service accounts and rights of scheduler and agent: what they call, and no more."""

from hami.scheduler.manifests.site import Manifest, Site

_GROUP = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]


def rbac(site: Site) -> list[Manifest]:
    """Accounts, roles, bindings. The namespace itself is not among them."""
    return [
        _account(site, site.scheduler_account),
        _account(site, site.agent_account),
        *_cluster(site, f"{site.name}-scheduler", site.scheduler_account, _SCHEDULER),
        *_cluster(site, f"{site.name}-agent", site.agent_account, _AGENT),
        *_leases(site),
        *_kube_scheduler(site),
    ]


def _rule(resources: list[str], verbs: list[str], group: str = "") -> Manifest:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


_SCHEDULER = [
    _rule(["pods"], [*_READ, "patch"]),  # patch: to wake a pod that waits, to note that room is being made for it
    _rule(["pods/binding"], ["create"]),
    _rule(["pods/eviction"], ["create"]),  # to make room for a more important pod
    _rule(["poddisruptionbudgets"], ["list"], "policy"),  # where several have to go: what they let go together
    _rule(["nodes"], _READ),
    _rule(["resourcequotas"], _READ),
    _rule(["events"], ["create", "patch"]),
    # who asks about a pod, and what he may see (`scheduler.api`)
    _rule(["tokenreviews"], ["create"], "authentication.k8s.io"),
    _rule(["subjectaccessreviews"], ["create"], "authorization.k8s.io"),
]
_AGENT = [
    _rule(["pods"], [*_READ, "patch"]),  # the records of what was granted
    _rule(["pods/status"], ["patch"]),  # a pod whose card is not the one it was planned on is ended
    _rule(["nodes"], ["get", "patch"]),  # the register
    _rule(["events"], ["create", "patch"]),
]


def _leases(site: Site) -> list[Manifest]:
    """Our Lease and kube-scheduler's, both in our namespace."""
    own = _rule(["leases"], ["get", "watch", "update", "patch"], "coordination.k8s.io")
    own["resourceNames"] = [site.extender_lease, site.scheduler_name]
    role = {
        **_named("Role", f"{site.name}-scheduler", site.namespace),
        "rules": [_rule(["leases"], ["create"], "coordination.k8s.io"), own],
    }
    return [role, _bound(site, f"{site.name}-scheduler", "Role", site.scheduler_account, namespace=site.namespace)]


def _kube_scheduler(site: Site) -> list[Manifest]:
    """kube-scheduler runs in our pod under our account, with the rights Kubernetes ships for it."""
    prefix, account = f"{site.name}-kube-scheduler", site.scheduler_account
    return [
        _bound(site, prefix, "ClusterRole", account, role="system:kube-scheduler"),
        _bound(site, f"{prefix}-volumes", "ClusterRole", account, role="system:volume-scheduler"),
        _bound(
            site, prefix, "Role", account, namespace="kube-system", role="extension-apiserver-authentication-reader"
        ),
    ]


def _account(site: Site, name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": site.namespace}}


def _cluster(site: Site, name: str, account: str, rules: list[Manifest]) -> list[Manifest]:
    return [{**_named("ClusterRole", name), "rules": rules}, _bound(site, name, "ClusterRole", account)]


def _bound(
    site: Site, name: str, kind: str, account: str, *, namespace: str | None = None, role: str | None = None
) -> Manifest:
    return {
        **_named("RoleBinding" if namespace else "ClusterRoleBinding", name, namespace),
        "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": role or name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": site.namespace}],
    }


def _named(kind: str, name: str, namespace: str | None = None) -> Manifest:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": metadata}
