"""ValidatingAdmissionPolicies: walls that stand in the API server, also while none of our programs runs.

- records: only scheduler and agents write a pod's records, and nobody when it is created
- agents: an agent touches its own node and the pods there, nothing else
- controllers: a warning where annotations stand on a controller instead of its pods
"""

from hami.scheduler.manifests import cel
from hami.scheduler.manifests.site import Manifest, Site
from hami.vendors.policies import KEYS as POLICY_KEYS
from hami.wire.annotations import NODE

_NODE_NAME = "'authentication.kubernetes.io/node-name'"
"""Who a node's pod authenticates for; in its token since Kubernetes 1.30 (on by default from 1.32)."""


def record_policy(site: Site) -> list[Manifest]:
    """Row 2.12. A Binding's annotations land on the pod, so Bindings are guarded too (and their old form).

    Removing a record is as bad as forging one: its cards would count as free.
    """
    writers = [site.scheduler_user, site.agent_user, *site.record_writers]
    binders = [site.scheduler_user, *site.record_writers]
    variables = {
        "after": cel.or_empty("object.metadata.annotations"),
        "before": f"oldObject == null ? {{}} : {cel.or_empty('oldObject.metadata.annotations')}",
        "labels": cel.or_empty("object.metadata.labels"),
        "oldLabels": f"oldObject == null ? {{}} : {cel.or_empty('oldObject.metadata.labels')}",
        "changed": cel.differing("variables.after", "variables.before", site.records)
        + f" + {cel.differing('variables.labels', 'variables.oldLabels', [NODE])}.map(k, 'label ' + k)",
        "binds": "request.resource.resource == 'bindings'"
        " || (has(request.subResource) && request.subResource == 'binding')",
        "allowed": f"variables.binds ? request.userInfo.username in {cel.strings(binders)}"
        f" : request.operation == 'UPDATE' && request.userInfo.username in {cel.strings(writers)}",
    }
    validation = {
        "expression": "size(variables.changed) == 0 || variables.allowed",
        "messageExpression": "'HAMi records are written by its scheduler and agents only; '"
        " + request.userInfo.username + ' may not set or remove: ' + variables.changed.join(', ')",
        "reason": "Forbidden",
    }
    pods = ["pods", "pods/status", "pods/resize", "pods/ephemeralcontainers", "pods/binding", "bindings"]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": pods}
    # Most writes to a pod are kubelets' reports of its status. For each look at one, the API server unfolds the pod
    # and its former self: one look here spares those three that validation takes.
    changes = " || ".join(
        f"{cel.or_empty(f'object.metadata.{part}')} != {cel.or_empty(f'oldObject.metadata.{part}')}"
        for part in ("annotations", "labels")
    )
    condition = {"name": "notes-change", "expression": f"request.operation != 'UPDATE' || {changes}"}
    return _policy(f"{site.name}-records", [rule], variables, validation, conditions=[condition])


def agent_policy(site: Site) -> list[Manifest]:
    """An agent's token, stolen from one node, is worth nothing for another."""
    extra = "request.userInfo.extra"
    variables = {
        "home": f"has({extra}) && {_NODE_NAME} in {extra} ? {extra}[{_NODE_NAME}][0] : ''",
        "touched": "request.resource.resource == 'nodes' ? object.metadata.name"
        " : (has(object.spec.nodeName) ? object.spec.nodeName : '')",
    }
    validation = {
        "expression": "variables.home == '' || variables.touched == variables.home",
        "messageExpression": "'the HAMi agent of node ' + variables.home + ' may not write to '"
        " + request.resource.resource + ' of ' + (variables.touched == '' ? 'no node' : 'node ' + variables.touched)",
        "reason": "Forbidden",
    }
    resources = ["pods", "pods/status", "nodes", "nodes/status"]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": resources}
    condition = {"name": "agent", "expression": f"request.userInfo.username == {cel.string(site.agent_user)}"}
    return _policy(f"{site.name}-agents", [rule], variables, validation, conditions=[condition])


def controller_policy(site: Site) -> list[Manifest]:
    """Row 5.14. What a Deployment carries itself its pods never see."""
    keys = [*POLICY_KEYS, *site.resources, *(key for vendor in site.vendors for key in vendor.annotations)]
    variables = {
        "cron": "object.kind == 'CronJob'",
        "template": "variables.cron ? object.spec.jobTemplate.spec.template : object.spec.template",
        "own": cel.or_empty("object.metadata.annotations"),
        "job": "variables.cron && has(object.spec.jobTemplate.metadata)"
        " && has(object.spec.jobTemplate.metadata.annotations) ? object.spec.jobTemplate.metadata.annotations : {}",
        "pods": cel.or_empty("variables.template.metadata.annotations"),
        "lost": f"{cel.strings(keys)}.filter(k, (k in variables.own || k in variables.job) && !(k in variables.pods))",
    }
    validation = {
        "expression": "size(variables.lost) == 0",
        "messageExpression": "'no effect on ' + object.kind + ', its pods do not have them: '"
        " + variables.lost.join(', ') + '; write annotations into the pod template, resources under resources.limits'",
    }
    rules = [
        {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}
        for group, resources in (
            ("apps", ["deployments", "statefulsets", "daemonsets", "replicasets"]),
            ("batch", ["jobs", "cronjobs"]),
        )
    ]
    # A ReplicaSet of a Deployment, a Job of a CronJob: they copy what was already warned about.
    free = {"name": "not-owned", "expression": "!has(object.metadata.ownerReferences)"}
    name = f"{site.name}-controllers"
    return _policy(name, rules, variables, validation, conditions=[free], action="Warn", failure_policy="Ignore")


def _policy(
    name: str,
    rules: list[Manifest],
    variables: dict[str, str],
    validation: Manifest,
    *,
    conditions: list[Manifest] | None = None,
    action: str = "Deny",
    failure_policy: str = "Fail",
) -> list[Manifest]:
    """A policy and the binding that puts it to work everywhere."""
    spec: Manifest = {
        "failurePolicy": failure_policy,
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": rules},
        "variables": [{"name": key, "expression": expression} for key, expression in variables.items()],
        "validations": [validation],
    }
    if conditions:
        spec["matchConditions"] = conditions
    version = "admissionregistration.k8s.io/v1"
    metadata = {"name": name}
    policy = {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec}
    bound = {"policyName": name, "validationActions": [action]}
    binding = {"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata, "spec": bound}
    return [policy, binding]
