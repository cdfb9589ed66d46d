"""Pods run on a real kubelet with real containers, and its parts can be lost and come back."""

from collections.abc import Iterator
from typing import Any

import pytest

from hami.lab import Lab, images

IMAGE = images.TOOLS


def pod(name: str, command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", command]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


def phase(lab: Lab, name: str) -> str:
    return str(lab.get("pod", name)["status"].get("phase"))


@pytest.fixture
def tidy(lab_node: Lab) -> Iterator[Lab]:
    lab_node.wait_for("service account", lambda: lab_node.get("serviceaccount", "default"))
    yield lab_node
    lab_node.kubectl("delete", "pods", "--all", "--now")


def test_a_pod_runs_and_logs_and_exec_work(tidy: Lab) -> None:
    tidy.apply(pod("runs", "echo hello; exec sleep 600"))
    tidy.wait_for("running", lambda: phase(tidy, "runs") == "Running", 30)
    assert tidy.kubectl("logs", "runs").strip() == "hello"
    assert tidy.kubectl("exec", "runs", "--", "cat", "/etc/hostname").strip() == "runs"


def test_a_pod_that_ends_tells_its_exit_code(tidy: Lab) -> None:
    tidy.apply(pod("ends", "exit 7", restartPolicy="Never"))
    tidy.wait_for("failed", lambda: phase(tidy, "ends") == "Failed", 30)
    state = tidy.get("pod", "ends")["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 7


def test_a_pod_lives_through_a_kill_of_kubelet_and_of_containerd(tidy: Lab) -> None:
    node = tidy.nodes["node-1"]
    tidy.apply(pod("stays", "exec sleep 600"))
    tidy.wait_for("running", lambda: phase(tidy, "stays") == "Running", 30)
    before = tidy.get("pod", "stays")["status"]["containerStatuses"][0]["containerID"]
    for part in (node.kubelet, node.containerd):
        part.kill()
        assert not part.process.running
        part.start()
    tidy.apply(pod("after", "exec sleep 600"))
    tidy.wait_for("running", lambda: phase(tidy, "after") == "Running", 30)
    status = tidy.get("pod", "stays")["status"]["containerStatuses"][0]
    assert (status["containerID"], status["restartCount"]) == (before, 0)


def test_a_program_on_the_node_sees_the_nodes_device_plugin_folder(tidy: Lab) -> None:
    node = tidy.nodes["node-1"]
    assert (node.root / "var/lib/kubelet/device-plugins/kubelet.sock").is_socket()
    seen = tidy.program(["ls", "/var/lib/kubelet/device-plugins"], node=node, name="look")
    assert seen.wait(10) == 0
    assert "kubelet.sock" in seen.log.read_text()


def test_a_second_node_has_a_device_plugin_folder_and_a_network_of_its_own(tidy: Lab) -> None:
    second = tidy.add_node("node-2")
    try:
        (second.root / "var/lib/kubelet/device-plugins/mine").touch()
        assert not (tidy.nodes["node-1"].root / "var/lib/kubelet/device-plugins/mine").exists()
        tidy.apply(pod("there", "exec sleep 600", nodeSelector={"kubernetes.io/hostname": "node-2"}))
        tidy.wait_for("running", lambda: phase(tidy, "there") == "Running", 30)
        address = tidy.get("pod", "there")["status"]["podIP"]
        assert address.rsplit(".", 1)[0] == second.address.rsplit(".", 1)[0]
    finally:
        tidy.remove_node("node-2")
    assert "node-2" not in tidy.kubectl("get", "nodes")
