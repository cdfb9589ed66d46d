"""A node with a real kubelet whose disks fill or vanish: no grant is lost, no limit raised, and it is said."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hami.kube import paths
from hami.model.plan import Slice
from hami.wire import annotations as keys

from .conftest import AgentNode, sliced

UMOUNT = "import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 2))"


@pytest.fixture
def full(agent: AgentNode) -> Iterator[Path]:
    """The agent's state folder on a disk of its own, and the file in it that may take all of it."""
    state = agent.node.folder / "agent"
    agent.program.kill()
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    agent.node.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", state)
    try:
        agent.node.run("sh", "-c", f"cp -a {kept}/. {state}")
        agent.program.start()
        agent.wait_ready()
        yield state / "fill"
    finally:
        agent.program.kill()
        agent.node.run(sys.executable, "-c", UMOUNT, state)
        shutil.rmtree(kept)
        agent.program.start()
        agent.wait_ready()


def resize(agent: AgentNode, name: str, card: int, mem: int) -> None:
    text = keys.encode_devices([[Slice(agent.bench.uuid(card), "NVIDIA", mem, 10)]])
    notes = {"metadata": {"annotations": {"hami.io/vgpu-devices-allocated": text}}}
    agent.call(lambda kube: kube.patch(paths.pods("default", name), notes, "merge"))


def policy(agent: AgentNode, name: str) -> str:
    """The line of the card, in the file on the host."""
    uid = agent.pods()[name].metadata.uid
    texts = [path.read_text() for path in (agent.hook / "vgpu/allocations").glob("*/policy")]
    return next(line for text in texts if uid in text for line in text.splitlines() if line.startswith("card "))


def events(agent: AgentNode, reason: str) -> str:
    return agent.lab.kubectl("get", "events", f"--field-selector=reason={reason}")


def test_a_full_disk_offers_no_card_keeps_what_runs_and_does_all_when_there_is_room(
    agent: AgentNode, full: Path
) -> None:
    """Found full at the start, the agent has its cards given to nobody: the scheduler has the node's word for it."""
    agent.create("runs", sliced())
    agent.bind("runs", [(0, 1000, 10)])
    agent.wait_running("runs")
    agent.node.run("sh", "-c", f"head -c 8000000 /dev/zero > {full} || true")
    agent.program.kill()
    agent.program.start()
    why = f"[-]disk cannot write to {full.parent}: No space left on device"
    agent.lab.wait_for("said", lambda: why in agent.page("/readyz"), 60)
    agent.lab.wait_for("no card offered", lambda: agent.allocatable() == 0, 60)
    agent.lab.wait_for("told", lambda: "No space left on device" in events(agent, "DiskUnwritable"), 60)
    agent.create("comes", sliced())
    agent.bind("comes", [(1, 1000, 10)])
    agent.lab.wait_for("refused", lambda: agent.phase("comes") == "Failed", 60)
    assert agent.lab.get("pod", "comes")["status"]["reason"] == "UnexpectedAdmissionError"
    assert agent.phase("runs") == "Running"
    resize(agent, "runs", 0, 3000)
    agent.lab.wait_for("told", lambda: "No space left on device" in events(agent, "ResizeWaits"), 60)
    assert " mem_mib 1000 " in policy(agent, "runs")
    agent.node.run("rm", full)
    agent.lab.wait_for("resized", lambda: " mem_mib 3000 " in policy(agent, "runs"), 60)
    assert "has 3000 MiB" in events(agent, "SliceResized")
    agent.wait_ready()
    agent.create("later", sliced())
    agent.bind("later", [(1, 1000, 10)])
    agent.wait_running("later")


def test_a_resized_pod_outlives_a_removed_state_folder(agent: AgentNode) -> None:
    agent.create("resized", sliced())
    agent.bind("resized", [(2, 1000, 10)])
    agent.wait_running("resized")
    resize(agent, "resized", 2, 2500)
    agent.lab.wait_for("resized", lambda: " mem_mib 2500 " in policy(agent, "resized"), 60)
    agent.program.kill()
    shutil.rmtree(agent.node.folder / "agent")
    agent.program.start()
    agent.wait_ready()
    agent.lab.wait_for("grants rebuilt", lambda: agent.metric("hami_agent_granted_containers") >= 1, 60)
    assert " mem_mib 2500 " in policy(agent, "resized")


def test_a_container_that_restarts_finds_what_was_removed_under_it(agent: AgentNode) -> None:
    """Library, policy, ledger and the broker's folder: without them it would not start, or without limits."""
    agent.create("again", sliced(mem=1500), restartPolicy="Always")
    agent.bind("again", [(3, 1500, 10)])
    agent.wait_running("again")
    shutil.rmtree(agent.hook / "vgpu")
    container = agent.lab.get("pod", "again")["status"]["containerStatuses"][0]["containerID"].partition("//")[2]
    agent.node.ctr("task", "kill", "-s", "SIGKILL", container)

    def restarted() -> bool:
        status = agent.lab.get("pod", "again")["status"]["containerStatuses"][0]
        return status["restartCount"] >= 1 and "running" in status["state"]

    agent.lab.wait_for("a restart", restarted, 60)
    assert " mem_mib 1500 " in policy(agent, "again")
    assert agent.lab.kubectl("exec", "again", "--", "cat", "/etc/ld.so.preload").strip().endswith("libvgpu.so")
