"""The control plane is real, each part can be lost and come back, and several live side by side."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.lab import CommandFailed, Lab, LabError

Labs = Callable[..., Lab]


@pytest.fixture(scope="module")
def other(lab: Lab) -> Iterator[Lab]:
    """A second cluster beside the session's, with settings of its own."""
    flags = {"service-cluster-ip-range": "10.97.0.0/16"}
    with Lab(scheduler={"profiles": [{"schedulerName": "first"}]}, apiserver_flags=flags) as second:
        yield second


def unrun(name: str, scheduler: str) -> dict[str, Any]:
    """A pod that nobody runs: only its binding is of interest."""
    spec = {"schedulerName": scheduler, "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_all_parts_answer_and_have_their_version(lab: Lab) -> None:
    assert lab.kubectl("get", "--raw", "/readyz") == "ok"
    assert "Server Version: v1." in lab.kubectl("version")
    assert all(part.process.running for part in lab.control_plane.parts())


def test_what_kubectl_refuses_comes_back_with_its_words(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match='"nobody" not found'):
        lab.kubectl("get", "namespace", "nobody")


def test_an_identity_has_the_rights_of_its_user_and_no_more(lab: Lab) -> None:
    scheduler = lab.identity("system:kube-scheduler")
    as_scheduler = f"--kubeconfig={scheduler.kubeconfig}"
    assert lab.kubectl(as_scheduler, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").endswith(
        "system:kube-scheduler"
    )
    lab.kubectl(as_scheduler, "get", "nodes")
    with pytest.raises(CommandFailed, match="forbidden"):
        lab.kubectl(as_scheduler, "get", "secrets", "-A")


def test_a_manifest_is_applied_from_objects_and_from_text(lab: Lab) -> None:
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}})
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {a: '2'}\n")
    assert [lab.get("configmap", name)["data"]["a"] for name in ("one", "two")] == ["1", "2"]


def test_two_labs_stand_side_by_side_and_know_nothing_of_each_other(lab: Lab, other: Lab) -> None:
    lab.kubectl("create", "namespace", "only-here")
    assert other.url != lab.url
    assert "only-here" in lab.kubectl("get", "namespaces")
    assert "only-here" not in other.kubectl("get", "namespaces")
    lab.kubectl("delete", "namespace", "only-here", "--wait=false")


def test_a_flag_of_the_api_server_is_replaced(other: Lab) -> None:
    assert other.get("service", "kubernetes")["spec"]["clusterIP"] == "10.97.0.1"


def test_schedulers_run_with_the_configuration_given(other: Lab) -> None:
    other.start_scheduler({"profiles": [{"schedulerName": "second"}]}, name="second")
    assert set(other.control_plane.schedulers) == {"kube-scheduler", "second"}
    other.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "board"}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "9"}}}
    other.kubectl("patch", "node", "board", "--subresource=status", "-p", json.dumps(ready))
    other.wait_for("service account", lambda: other.get("serviceaccount", "default"))
    for name in ("first", "second"):
        other.apply(unrun(f"pod-of-{name}", scheduler=name))
    bound = [lambda pod=f"pod-of-{name}": other.get("pod", pod)["spec"].get("nodeName") for name in ("first", "second")]
    assert [other.wait_for("binding", one, 30) for one in bound] == ["board", "board"]


def test_a_program_gets_its_kubeconfig_and_a_log(lab: Lab) -> None:
    run = lab.program(["sh", "-c", "echo with $KUBECONFIG; echo $MINE; exec sleep 600"], {"MINE": "own"}, name="p")
    lab.wait_for("log", lambda: "own" in run.log.read_text(), 30)
    assert f"with {lab.kubeconfig}" in run.log.read_text()
    run.kill()
    assert not run.running


def test_each_part_killed_comes_back_with_the_state_it_had(other: Lab) -> None:
    other.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}})
    for part in other.control_plane.parts():
        part.kill()
        assert not part.process.running
        part.start()
    other.control_plane.apiserver.restart()
    assert other.get("configmap", "kept")["data"] == {"a": "1"}
    # The controllers have noticed too: a new namespace gets its service account.
    other.kubectl("create", "namespace", "later")
    other.wait_for("service account", lambda: other.get("serviceaccount", "default", "later"), 30)


def test_a_part_that_cannot_start_says_why_with_the_end_of_its_log(new_lab: Labs) -> None:
    with pytest.raises(LabError, match=r"kube-apiserver ended with 1 before it was ready[\s\S]*nonsense"):
        new_lab(apiserver_flags={"nonsense": "1"})


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(LabError, match="files that are not a lab's"):
        Lab(tmp_path).start()
    assert (tmp_path / "precious").read_text() == "mine"
