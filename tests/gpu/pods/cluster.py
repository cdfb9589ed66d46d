"""The cluster that the steps work on: lab, scheduler, webhook, agent, and tenants' pods with plain specs.

On a real card nothing is added to a pod but what its spec asks; on simulated ones a pod also gets the file that
describes the cards. All calls block.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hami import native
from hami.lab import Lab, NodeSpec, images
from hami.lab.node import Node
from hami.lab.process import Process
from hami.lab.product import Product
from hami.sim.cards import Bench, parse

NODE = "gpu-node"
IMAGE = "hami.io/lab/tenant:1"
RECORD = "hami.io/vgpu-devices-allocated"
PROBE = "/opt/probe"
ESCAPE = "/opt/escape"
EXTRA_PROGRAMS = ("setpriv", "cp", "chmod", "nohup", "umount", "mount", "mknod", "su", "timeout")
Json = dict[str, Any]


class Cluster:
    """Started part by part; each part is a step of its own."""

    def __init__(self, work: Path, *, simulated: bool, tenants: Path, library: Path | None = None) -> None:
        self.folder = work
        self.simulated = simulated
        self.tenants = tenants
        self.library = library
        """What the agent hands out instead of the library: for a run in which the checks must fail."""
        # Before the lab, whose programs inherit it: NVML must be the one that the agent is to use.
        (work / "cards").mkdir()
        self.bench = Bench(work / "cards" / "cards.sim", parse("cards: [{model: H200}]")) if simulated else None
        self.lab = Lab(nodes=[NodeSpec(NODE, labels={"gpu": "on"}, host_pids=True)])
        self.agent: Process | None = None
        self.agent_port = 0
        self.agent_began = 0.0
        self.writer: str = ""
        self.rounds_a_ns: float | None = None
        """Calibration of the probe's kernels, taken where the card is whole and idle."""

    @property
    def node(self) -> Node:
        return self.lab.nodes[NODE]

    # -- parts -----------------------------------------------------------------------

    def start_product(self) -> Product:
        product = Product(self.lab)
        product.start()
        product.install()
        # Who may change records by hand: row 5.16 is done by a person, not by our programs.
        self.writer = str(product.agents.kubeconfig)
        self.account = self.lab.identity(product.site.agent_user)
        return product

    def start_agent(self) -> None:
        """As a DaemonSet would run it: in the node's mounts, with the host's pids. CDI, so no NVIDIA toolkit."""
        self.agent_port = self.lab.take_port()
        environment = self.bench.environment if self.bench else {}
        self.agent = self.lab.program(
            self.agent_command(), env=environment, name="agent", kubeconfig=self.account.kubeconfig, node=self.node
        )
        self.wait_agent()

    def agent_command(self, **other: object) -> list[str]:
        """`other` settings replace these, `_` for `-`."""
        home = self.node.folder / "agent"
        config = home / "device-config.yaml"
        home.mkdir(exist_ok=True)
        config.write_text("nvidia:\n  gpuCorePolicy: force\n")
        words = {
            "node": NODE,
            "device-config-file": config,
            "hook-path": home / "hook",
            "state-dir": home / "state",
            "cdi-dir": "/var/run/cdi",
            "device-list-strategy": "cdi-cri",
            "metrics-bind-address": f"127.0.0.1:{self.agent_port}",
            "unregistered": "stop",
            "exceeded": "stop",
            "log-format": "text",
            **({"library-file": self.library} if self.library else {}),
            **self._simulated_driver(),
            **{key.replace("_", "-"): value for key, value in other.items()},
        }
        flags = [f"--{key}" if value is True else f"--{key}={value}" for key, value in words.items()]
        return [sys.executable, "-m", "hami", "agent", *flags]

    def restart_agent(self, **other: object) -> float:
        """kill -9, two seconds without it, and another in its place; seconds until that is ready."""
        assert self.agent is not None
        self.agent.kill()
        time.sleep(2)
        self.agent.command = self.node.command(self.agent_command(**other))
        self.agent.start()
        return self.wait_agent()

    def wait_agent(self) -> float:
        begun = self.agent_began = time.monotonic()
        self.lab.wait_for("agent ready", lambda: self.page("/readyz").endswith("ready\n"), 40)
        self.lab.wait_for("allocatable", lambda: self.allocatable() > 0, 30)
        return time.monotonic() - begun

    def allocatable(self) -> int:
        return int(self.lab.get("node", NODE)["status"]["allocatable"].get("nvidia.com/gpu", 0))

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.agent_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def _simulated_driver(self) -> dict[str, object]:
        """A driver installation made of the simulated libraries, with device nodes that are /dev/null."""
        if not self.simulated:
            return {}
        root = self.folder / "driver"
        libraries = root / f"usr/lib/{platform.machine()}-linux-gnu"
        if not libraries.exists():
            libraries.mkdir(parents=True)
            (root / "dev").mkdir()
            for name in (native.SIM_CUDA, native.SIM_NVML):
                shutil.copy2(native.library(name), libraries)
            for name in ("nvidiactl", "nvidia0"):
                os.mknod(root / "dev" / name, 0o666 | 0o020000, os.makedev(1, 3))
        return {"driver-root": root, "host-driver-root": root, "dev-root": root}

    def import_images(self) -> None:
        files = images.programs((*images.PROGRAMS, *EXTRA_PROGRAMS), images.NEEDED)
        programs = {PROBE: self.tenants / "probe", ESCAPE: self.tenants / "escape"}
        static = self.tenants / "escape-static"
        if static.exists():
            programs["/opt/escape-static"] = static
        files |= programs | images.libraries(programs.values())
        files |= libc(files)
        for file in self.tenants.glob("musl/*"):
            files[f"/opt/musl/{file.name}"] = file
            if file.name.startswith("ld-musl-"):
                files[f"/lib/{file.name}"] = file
        files["/etc/group"] = b"root:x:0:\n"
        self.load(images.write(self.folder / "tenant.tar", IMAGE, files, command=["/bin/sleep", "infinity"]))

    def load(self, archive: Path) -> None:
        self.node.import_image(archive)

    # -- pods ------------------------------------------------------------------------

    def pod(self, name: str, *, spec: Json | None = None, container: Json | None = None, **asks: int) -> Json:
        """A pod as a person writes it: an image, a command, and `nvidia.com/*` limits; no rights are asked for."""
        main: Json = {
            "name": "main",
            "image": IMAGE,
            "command": ["/bin/sleep", "infinity"],
            "resources": {"limits": {f"nvidia.com/{key}": str(value) for key, value in asks.items()}},
            **(container or {}),
        }
        made: Json = {"containers": [main], "terminationGracePeriodSeconds": 0, **(spec or {})}
        if self.bench:
            place = str(self.bench.path.parent)
            main["env"] = [
                *main.get("env", []),
                {"name": "HAMI_SIM_CARDS", "value": str(self.bench.path)},
                {"name": "PROBE_SIMULATED", "value": "1"},
            ]
            main["volumeMounts"] = [*main.get("volumeMounts", []), {"name": "cards", "mountPath": place}]
            made["volumes"] = [*made.get("volumes", []), {"name": "cards", "hostPath": {"path": place}}]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": made}

    def create(self, *pods: Json) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(pods)}
        self.lab.kubectl("create", "-f", "-", stdin=json.dumps(listed))

    @contextmanager
    def running(self, *pods: Json, within: float = 60) -> Iterator[None]:
        """They run inside the block and are gone after it."""
        names = [pod["metadata"]["name"] for pod in pods]
        self.create(*pods)
        try:
            self.wait_running(*names, within=within)
            yield
        finally:
            self.delete(*names)

    def wait_running(self, *names: str, within: float = 60) -> float:
        begun = time.monotonic()
        try:
            self.lab.wait_for("running", lambda: all(self.phase(name) == "Running" for name in names), within)
        except Exception as fault:
            raise RuntimeError(f"{fault}\n{self.why(*names)}") from fault
        return time.monotonic() - begun

    def delete(self, *names: str) -> None:
        if names:
            self.lab.kubectl("delete", "pod", *names, "--now", "--ignore-not-found", "--wait=true", timeout=90)

    def clear(self) -> None:
        """No pod of one step is there in the next."""
        self.lab.kubectl("delete", "pods", "--all", "--now", "--wait=true", timeout=90)
        self.lab.kubectl("delete", "events", "--all", timeout=30)

    def phase(self, name: str) -> str:
        return str(self.lab.get("pod", name)["status"].get("phase", ""))

    def record(self, name: str) -> str:
        return str(self.lab.get("pod", name)["metadata"].get("annotations", {}).get(RECORD, ""))

    def restarts(self, name: str) -> int:
        return int(self.lab.get("pod", name)["status"]["containerStatuses"][0]["restartCount"])

    def events(self, name: str) -> list[tuple[str, str]]:
        items = json.loads(self.lab.kubectl("get", "events", "-o", "json"))["items"]
        return [(one["reason"], one["message"]) for one in items if one["involvedObject"].get("name") == name]

    def pending_reason(self, name: str) -> str:
        conditions = self.lab.get("pod", name)["status"].get("conditions", [])
        return next((one.get("message", "") for one in conditions if one["type"] == "PodScheduled"), "")

    def why(self, *names: str) -> str:
        lines = [f"{name}: {self.phase(name)} {self.pending_reason(name)}" for name in names]
        lines += [f"  {reason}: {message}" for name in names for reason, message in self.events(name)]
        return "\n".join(lines)

    # -- inside pods -----------------------------------------------------------------

    def exec(self, pod: str, *words: str, timeout: float = 90, check: bool = True) -> str:
        """Standard output of a program started in the pod's container, as a second shell is."""
        command = [str(self.lab.binaries["kubectl"]), f"--kubeconfig={self.lab.kubeconfig}", "exec", pod, "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise RuntimeError(
                f"{pod}: {' '.join(words)}: exit {done.returncode}: {done.stderr[-800:]}{done.stdout[-400:]}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def start(self, pod: str, *words: str) -> "subprocess.Popen[str]":
        command = [str(self.lab.binaries["kubectl"]), f"--kubeconfig={self.lab.kubeconfig}", "exec", pod, "--", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def probe(self, pod: str, *words: str, timeout: float = 90) -> Json:
        """The last line of JSON that a tenant's program printed, also when it ended with an error."""
        return said(self.exec(pod, "env", *self.calibration, PROBE, *words, timeout=timeout, check=False))

    @property
    def calibration(self) -> list[str]:
        """Environment that spares the probe some seconds of kernels whose length it need not find out again."""
        return [f"PROBE_ROUNDS_A_NS={self.rounds_a_ns}"] if self.rounds_a_ns else []

    def work(self, pod: str, *words: object) -> "subprocess.Popen[str]":
        """`probe run ...` with the kernels' length as calibrated on the whole card."""
        return self.start(pod, *self.run_words(*words))

    def run_words(self, *words: object) -> tuple[str, ...]:
        return ("env", *self.calibration, PROBE, "run", *map(str, words))

    def behind(self, pod: str, *words: object, name: str = "one") -> None:
        """Start a program in the pod that needs no shell and no kubelet to go on; see `of_behind`."""
        line = " ".join(map(str, words))
        self.exec(pod, "/bin/sh", "-c", f"{line} >/tmp/{name}.out 2>&1 </dev/null & echo $! > /tmp/{name}.pid")

    def of_behind(self, pod: str, name: str = "one") -> Json:
        """What it has said until now."""
        return said(self.exec(pod, "cat", f"/tmp/{name}.out"))

    def kill_behind(self, pod: str, name: str = "one") -> None:
        """As its own user would: kill -9 in the container."""
        self.exec(pod, "/bin/sh", "-c", f"kill -9 $(cat /tmp/{name}.pid)")

    # -- from outside ----------------------------------------------------------------

    def metric(self, name: str, pod: str) -> float:
        lines = (line for line in self.page("/metrics").splitlines() if line.startswith(f"{name}{{"))
        return sum(float(line.split()[-1]) for line in lines if f'pod="{pod}"' in line)

    def metrics_of(self, pod: str) -> list[str]:
        return [line for line in self.page("/metrics").splitlines() if f'pod="{pod}"' in line]

    def host_pids(self, pod: str, program: str) -> list[int]:
        """Processes of a pod by their host pid and the end of their program's name."""
        uid = self.lab.get("pod", pod)["metadata"]["uid"]
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                group = (folder / "cgroup").read_text().replace("_", "-")
                first = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            except OSError:
                continue
            if uid in group and first.endswith(program):
                found.append(int(folder.name))
        return found

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def card_free_mib(self) -> int:
        """What the whole card has left, by the host's NVML."""
        return self.ask_nvml("m = v.nvmlDeviceGetMemoryInfo(h); print(m.free >> 20)")

    def ask_nvml(self, line: str) -> int:
        """In a process of its own: nvidia-ml-py keeps one library a process."""
        text = f"import pynvml as v\nv.nvmlInit()\nh = v.nvmlDeviceGetHandleByIndex(0)\n{line}"
        environment = {**os.environ, **(self.bench.environment if self.bench else {})}
        if not self.bench:
            library = find_nvml()
            text = f"import ctypes\nimport pynvml\npynvml.nvmlLib = ctypes.CDLL({library!r})\n{text}"
        done = subprocess.run(
            [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"NVML: {done.stderr[-400:]}")
        return int(done.stdout)

    def until(self, what: str, holds: Callable[[], object], seconds: float = 20) -> float:
        """Seconds until it held."""
        begun = time.monotonic()
        self.lab.wait_for(what, holds, seconds)
        return time.monotonic() - begun


def libc(files: images.Files) -> dict[str, Path | bytes]:
    """The rest of the C library, which the driver's libraries need and every real image has, beside the part there."""
    folder = next(Path(path).parent for path in files if path.endswith("/libc.so.6"))
    names = (
        "libm.so.6",
        "libdl.so.2",
        "libpthread.so.0",
        "librt.so.1",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    )
    return {str(folder / name): folder / name for name in names if (folder / name).exists()}


def find_nvml() -> str:
    from hami.vendors.nvidia.driver import SONAME, find_library

    return str(find_library(Path("/")) or SONAME)


def said(text: str) -> Json:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": text.strip()[-300:] or "nothing said"}
    answer: Json = json.loads(lines[-1])
    return answer


def finish(process: "subprocess.Popen[str]", timeout: float = 60) -> Json:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"no end after {timeout} s"}
    answer = said(out)
    return answer if "error" not in answer else {**answer, "stderr": err[-500:]}


def steady(got: Json, skip_s: float) -> float:
    """Launches a second, the first `skip_s` and the last tenth left out."""
    tenths = got.get("tenths", [])[int(skip_s * 10) : -1]
    if not tenths:
        raise RuntimeError(f"no rate: {json.dumps(got)[:400]}")
    return float(sum(tenths)) / len(tenths) * 10
