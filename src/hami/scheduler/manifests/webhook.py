"""MutatingWebhookConfiguration: fail-closed for pods that want cards, never asked about any other.

`matchConditions` run inside the API server. So a pod without our resources is
created whether or not we are there, and a GPU pod is refused while we are not,
instead of slipping past as one with whole cards.
"""

from hami.scheduler.manifests import cel
from hami.scheduler.manifests.site import Manifest, Site
from hami.wire.annotations import NODE, WEBHOOK_IGNORE, WEBHOOK_LABEL

_OPT_OUT = {"matchExpressions": [{"key": WEBHOOK_LABEL, "operator": "NotIn", "values": [WEBHOOK_IGNORE]}]}


def mutating_webhook(site: Site) -> Manifest:
    """One webhook for pods that want cards; a second, which may fail, where cards are hidden from all others."""
    annotated = cel.carries("object.metadata.annotations", [*site.records, *site.resources])
    labelled = cel.carries("object.metadata.labels", [NODE])
    wants_cards = f"{cel.asks(site.resources)} || {annotated} || {labelled}"
    webhooks = [_webhook(site, "pods.hami.io", "wants-cards", wants_cards, "Fail")]
    if site.hide_cards:
        webhooks.append(_webhook(site, "hide.hami.io", "wants-no-cards", f"!({wants_cards})", "Ignore"))
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"{site.name}-webhook"},
        "webhooks": webhooks,
    }


def _webhook(site: Site, name: str, condition: str, expression: str, failure_policy: str) -> Manifest:
    return {
        "name": name,
        "admissionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": _client(site),
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}
        ],
        "matchConditions": [{"name": condition, "expression": expression}],
        "namespaceSelector": _OPT_OUT,
        "objectSelector": _OPT_OUT,
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        # Others may add containers after us; a second call of ours changes nothing that is complete.
        "reinvocationPolicy": "IfNeeded",
        "timeoutSeconds": site.webhook_timeout_seconds,
    }


def _client(site: Site) -> Manifest:
    client: Manifest = {"caBundle": site.ca_bundle} if site.ca_bundle else {}
    if site.webhook_url:
        return {**client, "url": site.webhook_url}
    service = {
        "namespace": site.namespace,
        "name": site.webhook_service,
        "path": "/webhook",
        "port": site.webhook_port,
    }
    return {**client, "service": service}
