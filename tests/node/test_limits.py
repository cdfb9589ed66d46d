"""The preloaded library in a real container, on the simulated driver: held to its slice, resized, seen."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hami import native
from hami.agent.files import replace_file
from hami.cli.limits.top import Slice as Shown
from hami.cli.limits.top import slices
from hami.kube import paths
from hami.model.plan import Slice
from hami.wire import annotations as keys

from . import musl
from .conftest import AgentNode, sliced

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("/lib64", "/lib/x86_64-linux-gnu")
MIB = 1 << 20


@pytest.fixture(scope="module")
def programs(agent_node: AgentNode) -> Path:
    """A folder with the probe and the simulated driver, for containers to mount."""
    folder = agent_node.node.folder / "programs"
    folder.mkdir(exist_ok=True)
    probe_of(folder / "probe")
    for name in (native.SIM_CUDA, native.SIM_NVML):
        library = native.library(name)
        (folder / library.name).write_bytes(library.read_bytes())
    return folder


def probe_of(target: Path, *flags: str) -> None:
    sources = [*sorted((ROOT / "native/probe").glob("*.c")), ROOT / "native/src/intercept/elf.c"]
    include = [f"-I{ROOT / 'native/include'}", f"-I{ROOT / 'native/src'}"]
    command = ["gcc", "-std=gnu11", "-O1", *include, *sources, "-o", target, *flags, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)


def held(agent: AgentNode, programs: Path, *, mem: int, cores: int = 30) -> dict[str, Any]:
    """A container that can run the probe, and its pod's volumes."""
    container = sliced(mem=mem, cores=cores)
    places = [(path, path) for path in LIBRARIES] + [(str(programs), "/opt"), (str(agent.bench.path.parent),) * 2]
    container["volumeMounts"] = [{"name": f"v{at}", "mountPath": place} for at, (_, place) in enumerate(places)]
    container["env"] = [
        {"name": "LD_LIBRARY_PATH", "value": "/opt"},
        {"name": "HAMI_SIM_CARDS", "value": str(agent.bench.path)},
        {"name": "PROBE_SIMULATED", "value": "1"},
    ]
    return {
        "container": container,
        "volumes": [{"name": f"v{at}", "hostPath": {"path": path}} for at, (path, _) in enumerate(places)],
    }


def probe(agent: AgentNode, pod: str, *words: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    said = agent.lab.kubectl("exec", pod, "--", *before, "/opt/probe", *words)
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def value(agent: AgentNode, name: str, pod: str) -> float:
    lines = (
        line for line in agent.page("/metrics").splitlines() if line.startswith(f"{name}{{") and f'pod="{pod}"' in line
    )
    return sum(float(line.split()[-1]) for line in lines)


@pytest.fixture
def pod(agent: AgentNode, programs: Path) -> str:
    made = held(agent, programs, mem=4000)
    agent.create("held", made["container"], volumes=made["volumes"])
    agent.bind("held", [(0, 4000, 30)])
    agent.wait_running("held")
    return "held"


def test_a_program_is_held_to_its_slice_whatever_its_environment_says(agent: AgentNode, pod: str) -> None:
    """Rows 3.2, 3.11, 5.2."""
    got = probe(agent, pod, "mem", "linear")
    assert (got["total_mib"], got["refused_with"], got["again"]) == (4000, 2, 1)
    assert got["taken_mib"] <= 4000
    kept = (f"HAMI_SIM_CARDS={agent.bench.path}", "LD_LIBRARY_PATH=/opt", "PROBE_SIMULATED=1")
    bare = ("env", "-i", *kept, "CUDA_DISABLE_CONTROL=true", "CUDA_DEVICE_MEMORY_LIMIT=99g", "LD_PRELOAD=")
    assert probe(agent, pod, "mem", "linear", before=bare)["total_mib"] == 4000


AS = """
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    return count > 2 && setresuid(atoi(words[1]), atoi(words[1]), atoi(words[1])) == 0 ? execv(words[2], words + 2) : 9;
}
"""


def test_another_user_and_a_setuid_program_are_held_too(agent: AgentNode, programs: Path, pod: str) -> None:
    """Row 3.11. A setuid program hears nothing of LD_ variables: it finds the driver by its own path."""
    (programs / "as.c").write_text(AS)
    subprocess.run(["gcc", "-O1", programs / "as.c", "-o", programs / "as"], check=True)
    probe_of(programs / "risen", "-Wl,-rpath,/opt")
    (programs / "risen").chmod(0o4755)
    probe(agent, pod, "info")  # makes the simulated card's file
    Path(f"{agent.bench.path}.live").chmod(0o666)
    for program in ("probe", "risen"):
        words = ("env", "LD_PRELOAD=", "/opt/as", "1234", f"/opt/{program}", "mem", "linear")
        said = agent.lab.kubectl("exec", pod, "--", *words)
        got = json.loads(said.splitlines()[-1])
        assert (got["total_mib"], got["refused_with"], got["again"]) == (4000, 2, 1)


def test_what_it_uses_is_seen_on_the_node_and_gone_with_it(agent: AgentNode, pod: str) -> None:
    """Rows 3.5, 3.18."""
    agent.lab.kubectl(
        "exec", pod, "--", "/bin/sh", "-c", "/opt/probe hold 1000 600 >/dev/null 2>&1 </dev/null & echo $! > /tmp/pid"
    )
    agent.lab.wait_for("its buffer", lambda: value(agent, "hami_vgpu_memory_buffer_bytes", pod) == 1000 * MIB, 60)
    assert value(agent, "hami_vgpu_memory_limit_bytes", pod) == 4000 * MIB
    agent.lab.kubectl("exec", pod, "--", "/bin/sh", "-c", "kill -9 $(cat /tmp/pid)")
    agent.lab.wait_for("nothing", lambda: value(agent, "hami_vgpu_memory_used_bytes", pod) == 0, 5)


@pytest.mark.parametrize(
    ("core_policy", "work", "word"),
    [
        ("force", ("spin", "11", "1000000"), "charge"),
        ("default", ("sync", "11", "2000000", "3000000"), "NVML"),  # alone on its card: nothing is charged
    ],
)
def test_top_shows_what_a_slice_holds_and_how_much_of_the_card_it_had(
    agent: AgentNode, pod: str, core_policy: str, work: tuple[str, ...], word: str
) -> None:
    """Against the program's own count of what it launched; a busy machine moves the windows by a second."""
    (policy,) = agent.hook.glob("vgpu/allocations/*/policy")
    changed = policy.read_text().replace("core_policy default", f"core_policy {core_policy}")
    replace_file(policy, changed.encode(), 0o444, durable=False)
    ours = "/opt/probe hold 1000 60 >/dev/null 2>&1 </dev/null & echo $! > /tmp/pid"
    agent.lab.kubectl("exec", pod, "--", "/bin/sh", "-c", ours)
    agent.lab.wait_for("its buffer", lambda: value(agent, "hami_vgpu_memory_buffer_bytes", pod) == 1000 * MIB, 60)
    shown: list[Shown] = []
    with ThreadPoolExecutor(1) as background:
        running = background.submit(probe, agent, pod, "run", *work, before=("env", "PROBE_ROUNDS_A_NS=1"))
        time.sleep(5)  # until it has been seen that it is alone, launches are charged, and what was told stands 2.5 s
        agent.lab.wait_for("its word", lambda: word in {one.time_by for one in shown_of(agent, pod)}, 30)
        while not running.done():
            shown += shown_of(agent, pod)
            time.sleep(0.5)
        had = running.result()["tenths"][40:105]
    assert all((one.limit_mib, one.limit_percent) == (4000, 30) for one in shown)
    busy = [one for one in shown if one.time_percent][2:-2]
    assert {one.time_by for one in busy} == {word}
    # Two contexts of 480 MiB and the buffer; the program's module is 2.
    assert all(abs(one.used_mib - (1000 + 2 * 480 + 2)) <= 2 for one in busy)
    percent = sum(had) / len(had) * int(work[2]) / 1e6  # launches in a tenth of a second
    assert sum(one.time_percent or 0.0 for one in busy) / len(busy) == pytest.approx(percent, abs=8)
    assert [(one["pod"], one["limit_mib"]) for one in top(agent)] == [(pod, 4000)]  # and so the command says
    agent.lab.kubectl("exec", pod, "--", "/bin/sh", "-c", "kill -9 $(cat /tmp/pid)")
    agent.lab.wait_for("nothing", lambda: top(agent) == [], 5)


def shown_of(agent: AgentNode, pod: str) -> list[Shown]:
    return [one for one in slices(agent.page("/metrics")) if one.pod == pod]


def top(agent: AgentNode) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "hami", "limits", "top", "--agent", f"http://127.0.0.1:{agent.port}", "-o", "json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    shown: list[dict[str, Any]] = json.loads(said)["slices"]
    return shown


def test_a_running_slice_is_resized_without_a_restart(agent: AgentNode, pod: str) -> None:
    """Row 5.16."""
    text = keys.encode_devices([[Slice(agent.bench.uuid(0), "NVIDIA", 6000, 60)]])  # type: ignore[arg-type]
    body = {"metadata": {"annotations": {"hami.io/vgpu-devices-allocated": text}}}
    assert probe(agent, pod, "info")["total_mib"] == 4000
    agent.call(lambda kube: kube.patch(paths.pods("default", pod), body))
    # First who never starts CUDA, as nvidia-smi: no process that did has heard of it.
    agent.lab.wait_for("the new size in NVML", lambda: probe(agent, pod, "nvml")["total_mib"] == 6000, 60)
    agent.lab.wait_for("the new size", lambda: probe(agent, pod, "info")["total_mib"] == 6000, 60)
    status = agent.lab.get("pod", pod)["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0
    agent.lab.wait_for("told", lambda: "SliceResized" in agent.lab.kubectl("get", "events"), 60)


def test_with_kubelet_s_checkpoint_and_ours_lost_a_running_program_gets_its_broker_back(
    agent: AgentNode, pod: str
) -> None:
    """Its folder says whose it is. kubelet gives its ids to the next pod, which gets a grant of its own."""
    hold = "/opt/probe hold 1000 600 >/dev/null 2>&1 </dev/null & echo $! > /tmp/pid"
    agent.lab.kubectl("exec", pod, "--", "/bin/sh", "-c", hold)
    agent.lab.wait_for("its buffer", lambda: value(agent, "hami_vgpu_memory_buffer_bytes", pod) == 1000 * MIB, 60)
    agent.program.kill()
    agent.node.kubelet.kill()
    (agent.node.root / "var/lib/kubelet/device-plugins/kubelet_internal_checkpoint").unlink()
    shutil.rmtree(agent.node.folder / "agent")
    agent.node.kubelet.start()
    agent.program.start()
    agent.lab.wait_for("it is seen again", lambda: value(agent, "hami_vgpu_memory_buffer_bytes", pod) == 1000 * MIB, 60)
    agent.create("next", sliced(mem=2000))
    agent.bind("next", [(0, 2000, 10)])
    agent.wait_running("next")
    assert agent.seen("next")[1][agent.bench.uuid(0)] == "mem_mib 2000 core_percent 10"
    assert probe(agent, pod, "info")["total_mib"] == 4000
    status = agent.lab.get("pod", pod)["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0
    agent.lab.kubectl("exec", pod, "--", "/bin/sh", "-c", "kill -9 $(cat /tmp/pid)")
    agent.lab.wait_for("nothing", lambda: value(agent, "hami_vgpu_memory_used_bytes", pod) == 0, 5)


def test_a_musl_program_hears_nothing_of_the_library_and_is_seen_and_named(
    agent: AgentNode, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Row 3.13: it takes 6000 MiB of a slice of 4000. What stops it is in test_gpu_pods.py."""
    try:
        made = musl.built(tmp_path_factory.mktemp("musl"))
    except musl.NotHere as why:
        pytest.skip(str(why))
    pod = held(agent, programs, mem=4000)
    for name, place, at in (("musl", made.folder, musl.PLACE), ("loader", made.loader, f"/lib/{musl.LOADER}")):
        pod["container"]["volumeMounts"].append({"name": name, "mountPath": at, "readOnly": True})
        pod["volumes"].append({"name": name, "hostPath": {"path": str(place)}})
    agent.create("musl", pod["container"], volumes=pod["volumes"])
    agent.bind("musl", [(0, 4000, 30)])
    agent.wait_running("musl")
    evader = f"{musl.PLACE}/{made.program.name}"
    line = f"{evader} path /opt/libcuda.so.1 6000 90 >/tmp/said 2>&1 </dev/null & echo $!"
    pid = agent.lab.kubectl("exec", "musl", "--", "/bin/sh", "-c", line).strip()
    agent.lab.wait_for("seen", lambda: agent.metric("hami_broker_unregistered_processes") == 1, 60)
    said = json.loads(agent.lab.kubectl("exec", "musl", "--", "cat", "/tmp/said"))
    assert (said["total_mib"] > 4000, said["taken_mib"] >= 6000) == (True, True)  # nothing holds it
    told = agent.lab.wait_for("told", lambda: warning(agent, "musl", "UnregisteredProcess"), 45)  # 30 s after its start
    assert "(escape, a musl program" in told
    assert agent.bench.uuid(0) in told
    agent.lab.kubectl("exec", "musl", "--", "/bin/sh", "-c", f"kill -9 {pid}")
    agent.lab.wait_for("gone", lambda: agent.metric("hami_broker_unregistered_processes") == 0, 60)


def warning(agent: AgentNode, pod: str, reason: str) -> str:
    events = agent.lab.kubectl("get", "events", "-o", "json", "--field-selector", f"involvedObject.name={pod}")
    return next((one["message"] for one in json.loads(events)["items"] if one["reason"] == reason), "")


def test_the_agent_restarts_and_a_program_started_meanwhile_waits_for_it(agent: AgentNode, pod: str) -> None:
    """Row 3.19's half: the slice's limit stands, nothing fails."""
    agent.program.kill()
    agent.program.start()
    assert probe(agent, pod, "info")["total_mib"] == 4000
    agent.wait_ready()
