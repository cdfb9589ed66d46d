"""Webhook, policies and rights on a real API server: who may create, change and bind what, also while we are down."""

import json
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from hami.lab import Lab
from hami.lab.errors import CommandFailed
from hami.scheduler import manifests
from hami.scheduler.manifests import Site

from .admission import CORES, GPU, MEM, RECORD, VENDORS, Cluster, Json, Webhook, wait_enforced

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(scheduler=False) as lab:
        webhook = Webhook(lab)
        site = Site(vendors=VENDORS, webhook_url=webhook.url, ca_bundle=webhook.ca_bundle)
        lab.kubectl("create", "namespace", site.namespace)
        lab.apply([*manifests.rbac(site), *manifests.admission(site)])
        cluster = Cluster(lab, webhook, site)
        lab.wait_for("service account", lambda: lab.get("serviceaccount", "default"))
        wait_enforced(cluster)
        yield cluster
        webhook.down()


@pytest.fixture
def up(cluster: Cluster) -> Cluster:
    cluster.webhook.up()
    return cluster


@pytest.fixture
def down(cluster: Cluster) -> Cluster:
    cluster.webhook.down()
    return cluster


# while the webhook is down


def test_a_pod_without_cards_is_created_while_the_webhook_is_down(down: Cluster) -> None:
    created = down.create(down.pod({"cpu": "1"}))
    assert created["spec"]["schedulerName"] == "default-scheduler"
    assert created["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}


@pytest.mark.parametrize(
    "wanting",
    [
        {"limits": {GPU: "1"}},
        {"limits": {MEM: "4000"}},
        {"initContainers": [{"name": "i", "image": "x", "resources": {"limits": {GPU: "1"}}}]},
        {"annotations": {MEM: "4000"}},
    ],
)
def test_a_pod_that_wants_cards_is_refused_while_the_webhook_is_down(down: Cluster, wanting: Json) -> None:
    assert 'failed calling webhook "pods.hami.io"' in down.refused(down.pod(**wanting))


def test_a_forged_record_is_refused_while_the_webhook_is_down(down: Cluster) -> None:
    assert "pods.hami.io" in down.refused(down.pod(annotations={RECORD: "GPU-a,NVIDIA,1,1:;"}))
    ignored = down.pod(annotations={RECORD: "GPU-a,NVIDIA,1,1:;"}, labels={"hami.io/webhook": "ignore"})
    assert f"may not set or remove: {RECORD}" in down.refused(ignored)


# while it is up


def test_a_gpu_pod_is_completed_and_its_requests_follow(up: Cluster) -> None:
    created = up.create(up.pod({GPU: "1"}))
    assert created["spec"]["schedulerName"] == "hami-scheduler"
    assert created["spec"]["containers"][0]["resources"] == {
        "limits": {GPU: "1", CORES: "100"},
        "requests": {GPU: "1", CORES: "100"},
    }
    created = up.create(up.pod({CORES: "30", MEM: "5000"}))
    assert created["spec"]["containers"][0]["resources"]["requests"] == {GPU: "1", CORES: "30", MEM: "5k"}


def test_a_request_that_cannot_be_meant_is_refused_with_the_way_out(up: Cluster) -> None:
    message = up.refused(up.pod({GPU: "1", MEM: "5Gi"}))
    assert "spec.containers[0].resources.limits[nvidia.com/gpumem]: '5Gi' is not usable" in message
    assert "MiB as a plain number, 5120" in message
    assert "metadata.annotations[nvidia.com/gpumem]" in up.refused(up.pod({GPU: "1"}, annotations={MEM: "4000"}))


def test_privileged_containers_and_named_nodes_are_refused(up: Cluster) -> None:
    privileged = {"securityContext": {"privileged": True}}
    assert "container c is privileged" in up.refused(up.pod({GPU: "1"}, container=privileged))
    assert "pod has node assigned" in up.refused(up.pod({GPU: "1"}, nodeName="n1"))
    up.create(up.pod(container=privileged))


@pytest.mark.parametrize("scheduler", ["default-scheduler", "volcano", "hami-scheduler"])
@pytest.mark.parametrize("limits", [{GPU: "1"}, None])
def test_forged_records_are_refused_whatever_scheduler_is_named(
    up: Cluster, scheduler: str, limits: Mapping[str, str] | None
) -> None:
    forged = up.pod(limits, annotations={"hami.io/vgpu-node": "n1"}, schedulerName=scheduler)
    assert "metadata.annotations[hami.io/vgpu-node] is written by the scheduler only" in up.refused(forged)
    labelled = up.pod(limits, labels={"hami.io/vgpu-node": "n1"}, schedulerName=scheduler)
    assert "metadata.labels[hami.io/vgpu-node] is written by the scheduler only" in up.refused(labelled)


def test_another_schedulers_pod_is_left_alone_and_warned_about(up: Cluster) -> None:
    foreign = up.pod({GPU: "1"}, schedulerName="volcano")
    warned = up.refused(foreign, "--dry-run=server", "--warnings-as-errors")
    assert "spec.schedulerName is volcano: the pod is left as it is and will get no card" in warned
    created = up.create(foreign)
    assert created["spec"]["schedulerName"] == "volcano"
    assert created["spec"]["containers"][0]["resources"]["limits"] == {GPU: "1"}


def test_pods_and_namespaces_can_opt_out_of_the_webhook(up: Cluster) -> None:
    created = up.create(up.pod({GPU: "1"}, labels={"hami.io/webhook": "ignore"}))
    assert created["spec"]["schedulerName"] == "default-scheduler"
    namespace = {"name": "out", "labels": {"hami.io/webhook": "ignore"}}
    up.lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "out"}}
    up.lab.apply(account)
    created = up.create(up.pod({GPU: "1"}, namespace="out"))
    assert created["spec"]["schedulerName"] == "default-scheduler"


# records after creation


def _patch(cluster: Cluster, name: str, user: str, patch: Json, *flags: str) -> str:
    body = json.dumps(patch)
    return cluster.lab.kubectl("patch", "pod", name, "--type=merge", "-p", body, f"--as={user}", *flags)


def _patch_status(cluster: Cluster, name: str, user: str, patch: Json) -> None:
    """As the agent does it: without the read that kubectl does first."""
    admin, url = cluster.lab.control_plane.admin, urlsplit(cluster.lab.url)
    context = ssl.create_default_context(cafile=str(admin.authority))
    context.load_cert_chain(admin.certificate, admin.key)
    connection = HTTPSConnection(url.hostname or "", url.port, context=context)
    headers = {"Content-Type": "application/merge-patch+json", "Impersonate-User": user}
    connection.request("PATCH", f"/api/v1/namespaces/default/pods/{name}/status", json.dumps(patch), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def _bind(cluster: Cluster, name: str, user: str, path: str, **metadata: Any) -> str:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    }
    url = f"/api/v1/namespaces/default/{path}"
    return cluster.lab.kubectl("create", "--raw", url, "-f", "-", f"--as={user}", stdin=json.dumps(binding))


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> str:
    """A user with every right on pods, bindings and workloads, and none of ours."""
    rules = [{"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["*"]}]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "all"},
        "rules": rules,
    }
    bound = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"kind": "User", "name": "alice"}],
    }
    cluster.lab.apply([role, bound])
    return "alice"


def test_only_the_scheduler_binds_with_records_and_they_land_on_the_pod(up: Cluster, alice: str) -> None:
    created = up.create(up.pod({GPU: "1"}))
    name, records = created["metadata"]["name"], {RECORD: "GPU-a,NVIDIA,1,1:;", "hami.io/vgpu-node": "n1"}
    for path in (f"pods/{name}/binding", "bindings"):
        for forged in ({"annotations": records}, {"labels": {"hami.io/vgpu-node": "n1"}}):
            for user in (alice, up.site.agent_user):
                with pytest.raises(CommandFailed, match=r"may not set or remove|forbidden"):
                    _bind(up, name, user, path, **forged)
    _bind(up, name, up.site.scheduler_user, f"pods/{name}/binding", annotations=records)
    bound = up.lab.get("pod", name)
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["annotations"] == records


def test_only_scheduler_and_agent_change_records_whichever_way(up: Cluster, alice: str) -> None:
    created = up.create(up.pod({GPU: "1"}))
    name = created["metadata"]["name"]
    _bind(up, name, up.site.scheduler_user, f"pods/{name}/binding", annotations={RECORD: "GPU-a,NVIDIA,1,1:;"})
    forgeries: list[Json] = [
        {"annotations": {RECORD: "GPU-b,NVIDIA,1,1:;"}},
        {"annotations": {RECORD: None}},
        {"annotations": {"hami.io/bind-phase": "success"}},
        {"labels": {"hami.io/vgpu-node": "n2"}},
    ]
    for forgery in forgeries:
        for flags in ((), ("--subresource=status",)):
            with pytest.raises(CommandFailed, match=r"alice may not set or remove: (label )?hami.io/"):
                _patch(up, name, alice, {"metadata": forgery}, *flags)
    _patch(up, name, alice, {"metadata": {"annotations": {"hami.io/gpu-scheduler-policy": "spread", "x": "y"}}})
    _patch(up, name, up.site.agent_user, {"metadata": {"annotations": {"hami.io/bind-phase": "success"}}})
    status = {"metadata": {"annotations": {"hami.io/vgpu-time": "5"}, "labels": {"hami.io/vgpu-node": "n1"}}}
    _patch_status(up, name, up.site.agent_user, status)
    assert up.lab.get("pod", name)["metadata"]["labels"] == {"hami.io/vgpu-node": "n1"}
    assert up.lab.get("pod", name)["metadata"]["annotations"] == {
        RECORD: "GPU-a,NVIDIA,1,1:;",
        "hami.io/vgpu-time": "5",
        "hami.io/bind-phase": "success",
        "hami.io/gpu-scheduler-policy": "spread",
        "x": "y",
    }


def test_a_pod_with_as_many_notes_as_there_may_be_is_guarded_and_can_be_changed(up: Cluster, alice: str) -> None:
    notes = {f"example.com/note-{number}": "x" * 1000 for number in range(240)}  # of 256 KiB
    name = up.create(up.pod({GPU: "1"}, annotations=notes))["metadata"]["name"]
    _patch(up, name, alice, {"metadata": {"annotations": {"example.com/note-7": "y"}}})
    with pytest.raises(CommandFailed, match=r"alice may not set or remove: hami\.io/bind-phase"):
        _patch(up, name, alice, {"metadata": {"annotations": {"hami.io/bind-phase": "success"}}})


def test_an_agents_token_is_good_for_its_own_node_only(up: Cluster) -> None:
    lab, site = up.lab, up.site
    for node in ("n1", "n2"):
        lab.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    spec = {"serviceAccountName": site.agent_account, "nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}
    metadata = {"name": "agent-n1", "namespace": site.namespace}
    lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    token = lab.kubectl(
        "create",
        "token",
        site.agent_account,
        "-n",
        site.namespace,
        "--bound-object-kind=Pod",
        "--bound-object-name=agent-n1",
    ).strip()
    config = yaml.safe_load(lab.kubeconfig.read_text())
    config["users"] = [{"name": "agent", "user": {"token": token}}]
    config["contexts"] = [{"name": "a", "context": {"cluster": config["clusters"][0]["name"], "user": "agent"}}]
    config["current-context"] = "a"
    path = lab.folder / "agent.yaml"
    path.write_text(yaml.safe_dump(config))

    def annotate(node: str) -> str:
        return lab.kubectl(
            f"--kubeconfig={path}", "annotate", "node", node, "--overwrite", "hami.io/node-nvidia-register=[]"
        )

    annotate("n1")
    with pytest.raises(CommandFailed, match="the HAMi agent of node n1 may not write to nodes of node n2"):
        annotate("n2")


# controllers


def _controller(kind: str, annotations: Json, template_annotations: Json) -> Json:
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": template_annotations},
        "spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never" if "Job" in kind else "Always"},
    }
    spec: Json = {"template": template}
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    elif kind != "Job":
        spec |= {"selector": {"matchLabels": {"a": "b"}}, "replicas": 0}
    if kind == "StatefulSet":
        spec["serviceName"] = "s"
    group = "batch/v1" if "Job" in kind else "apps/v1"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": "w", "annotations": annotations}, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job", "CronJob"])
def test_annotations_on_a_controller_instead_of_its_template_are_warned_about(up: Cluster, kind: str) -> None:
    def warnings(own: Json, template: Json) -> str:
        given = json.dumps(_controller(kind, own, template))
        with pytest.raises(CommandFailed) as shown:
            up.lab.kubectl("create", "--dry-run=server", "--warnings-as-errors", "-f", "-", stdin=given)
        return str(shown.value)

    lost = {"nvidia.com/use-gputype": "A100", MEM: "4000", "other": "x"}
    message = warnings(lost, {})
    assert f"no effect on {kind}, its pods do not have them: nvidia.com/gpumem, nvidia.com/use-gputype;" in message
    up.lab.kubectl(
        "create", "--dry-run=server", "--warnings-as-errors", "-f", "-", stdin=json.dumps(_controller(kind, lost, lost))
    )


# rights and kube-scheduler


@pytest.mark.parametrize(
    ("account", "verb", "resource", "may"),
    [
        ("scheduler", "watch", "pods", True),
        ("scheduler", "create", "pods/binding", True),
        ("scheduler", "watch", "nodes", True),
        ("scheduler", "patch", "nodes", False),
        ("scheduler", "get", "secrets", False),
        ("scheduler", "list", "poddisruptionbudgets.policy", True),
        ("scheduler", "update", "poddisruptionbudgets.policy", False),
        ("scheduler", "update", "leases.coordination.k8s.io/hami-scheduler", True),
        ("scheduler", "patch", "leases.coordination.k8s.io/hami-scheduler-extender", True),
        ("agent", "patch", "pods/status", True),
        ("agent", "patch", "nodes", True),
        ("agent", "create", "pods/binding", False),
        ("agent", "delete", "pods", False),
        ("agent", "get", "secrets", False),
    ],
)
def test_accounts_may_do_what_they_do_and_no_more(
    cluster: Cluster, account: str, verb: str, resource: str, may: bool
) -> None:
    user = cluster.site.scheduler_user if account == "scheduler" else cluster.site.agent_user
    group = f"--as-group=system:serviceaccounts:{cluster.site.namespace}"
    whole, _, sub = resource.partition("/") if resource.startswith("pods") else (resource, "", "")
    arguments = ["auth", "can-i", verb, whole, f"--as={user}", group, "-n", cluster.site.namespace]
    arguments += [f"--subresource={sub}"] if sub else []
    try:
        answer = cluster.lab.kubectl(*arguments)
    except CommandFailed:
        answer = "no"
    assert answer.strip().endswith("yes") is may


def test_a_real_kube_scheduler_takes_the_configuration(cluster: Cluster) -> None:
    client, _ = cluster.lab.control_plane.identity("kube-scheduler-extender-client")
    site = Site(
        vendors=VENDORS,
        extender_ca_file=str(client.authority),
        extender_cert_file=str(client.certificate),
        extender_key_file=str(client.key),
        leader_elect=False,
    )
    part = cluster.lab.start_scheduler(manifests.scheduler_configuration(site), name="hami-scheduler")
    part.stop()
