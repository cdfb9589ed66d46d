"""What people need to ask the scheduler questions (`hami explain`, `fit`, `frag`).

Everybody the API server knows may reach its API through the API server's service proxy, with GET and POST; what is
told depends on his own rights, which the scheduler asks for. The extender's verbs on the same port want
kube-scheduler's certificate, which the proxy does not have: with --extender-auth=none leave this out.
"""

from hami.scheduler.manifests.site import Manifest, Site

_GROUP = "rbac.authorization.k8s.io"
VIEWER = "hami-viewer"
"""A service account that may look at pods and nodes. Who proves himself by a client certificate, which no
proxy can pass on, asks in its name, if he may make tokens for it."""


def people(site: Site) -> list[Manifest]:
    """Apply beside `rbac`; leave out to keep the questions to those who have the rights anyway."""
    reach = f"{site.name}-ask"
    service = f"https:{site.webhook_service}:{site.webhook_port}"
    account = {"kind": "ServiceAccount", "name": VIEWER, "namespace": site.namespace}
    everybody = {"kind": "Group", "name": "system:authenticated", "apiGroup": _GROUP}
    proxy = {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": [service], "verbs": ["get", "create"]}
    look = {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": VIEWER, "namespace": site.namespace}},
        {**_named("ClusterRole", f"{site.name}-viewer"), "rules": [look]},
        {
            **_named("ClusterRoleBinding", f"{site.name}-viewer"),
            **_bound("ClusterRole", f"{site.name}-viewer", account),
        },
        {**_named("Role", reach, site.namespace), "rules": [proxy]},
        {**_named("RoleBinding", reach, site.namespace), **_bound("Role", reach, everybody)},
    ]


def _named(kind: str, name: str, namespace: str | None = None) -> Manifest:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": metadata}


def _bound(kind: str, role: str, subject: Manifest) -> Manifest:
    return {"roleRef": {"apiGroup": _GROUP, "kind": kind, "name": role}, "subjects": [subject]}
