"""Kills of every part, at random moments of pods' lives, on the real control plane, kubelet and containers.

Laws, whatever is killed: no card gives more than it has, every container that
runs was started with its own record, in the end every pod runs, waits with a
reason or was refused with one, and when all pods are gone nothing is taken.
"""

import os
import random
import time
from typing import Any

import pytest
import yaml

from hami.lab import CommandFailed, Lab
from hami.lab.agents import start_agent
from hami.lab.process import Process
from hami.lab.product import Product, Replica
from hami.sim.cards import Bench, parse
from hami.wire import annotations as keys

from .conftest import sliced

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("HAMI_CHAOS_KILLS", "6"))
SEED = int(os.environ.get("HAMI_CHAOS_SEED", "1"))
CARD_MIB = 40960
RECORD = "hami.io/vgpu-devices-allocated"


class Storm:
    """A cluster with two cards, pods that come and go, and parts that are killed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.random = random.Random(SEED)
        self.product = Product(lab)
        self.replica: Replica = self.product.start()
        self.product.install()
        node = lab.nodes["node-1"]
        self.bench = Bench(node.folder / "cards.sim", parse("cards: [{model: A100-40}, {model: A100-40}]"))
        self.agent = start_agent(
            lab,
            node,
            self.bench.environment,
            {"allocate-timeout": "20"},
            identity=lab.identity(self.product.site.agent_user),
        )
        self.parts: dict[str, Any] = {
            "hami scheduler": self.replica.process,
            "kube-scheduler": self.replica.kube_scheduler,
            "hami agent": self.agent,
            "API server": lab.control_plane.apiserver,
            "kubelet": node.kubelet,
        }
        self.created = 0

    def round(self) -> str:
        """Some pods come, one part dies while they are on their way, some pods go. Returns what was done."""
        victim = self.random.choice(list(self.parts))
        names = [self.create() for _ in range(self.random.randint(2, 5))]
        time.sleep(self.random.uniform(0.0, 1.2))  # the moment of the kill is the point
        part = self.parts[victim]
        part.kill()
        time.sleep(self.random.uniform(0.0, 1.0))
        part.start()
        if not isinstance(part, Process):
            part.wait_ready()
        gone = self.random.sample(names, self.random.randint(0, len(names)))
        for name in gone:
            self.again("delete", "pod", name, "--now", "--wait=false", "--ignore-not-found")
        return f"{victim} killed while {', '.join(names)} came; {', '.join(gone) or 'none'} went"

    def create(self) -> str:
        self.created += 1
        name = f"pod-{self.created}"
        container = sliced(mem=self.random.choice([1000, 4000, 9000, 20000]), cores=self.random.choice([0, 10, 40]))
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }
        self.again("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        return name

    def again(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl, until the API server and the webhook are there to answer."""

        def tried() -> str | None:
            try:
                return self.lab.kubectl(*arguments, stdin=stdin) or "done"
            except CommandFailed:
                return None

        return self.lab.wait_for(f"kubectl {' '.join(arguments)}", tried, 60)

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = yaml.safe_load(self.again("get", "pods", "-o", "yaml"))["items"]
        return found

    def over_committed(self) -> dict[str, int]:
        """Cards whose live records add up to more than they have."""
        taken: dict[str, int] = {}
        for pod in self.pods():
            record = pod["metadata"].get("annotations", {}).get(RECORD)
            if record and pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running"):
                for one in (one for container in keys.decode_devices(record) for one in container):
                    taken[one.card] = taken.get(one.card, 0) + one.mem_mib
        return {card: mib for card, mib in taken.items() if mib > CARD_MIB}

    def restless(self) -> list[str]:
        """Pods that neither run with their grant, nor wait with a reason, nor were refused with one."""
        return [pod["metadata"]["name"] for pod in self.pods() if not at_rest(pod)]

    def taken_bytes(self) -> float:
        """What the scheduler believes is taken, of all cards together."""
        status, page = self.replica.get("/metrics")
        assert status == 200
        lines = [line for line in page.splitlines() if line.startswith("hami_gpu_memory_allocated_bytes{")]
        assert lines
        return sum(float(line.split()[-1]) for line in lines)

    def wrongly_started(self) -> list[str]:
        """Running pods whose container was given another record than their own. Some must run for this to mean much."""
        wrong = []
        assert any(pod["status"]["phase"] == "Running" for pod in self.pods())
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp"):
                policy = self.again("exec", name, "--", "cat", "/usr/local/vgpu/policy")
                ((mine,),) = keys.decode_devices(pod["metadata"]["annotations"][RECORD])
                own = f"card {mine.card} mem_mib {mine.mem_mib} core_percent {mine.core_percent}"
                if pod["metadata"]["uid"] not in policy or own not in policy:
                    wrong.append(f"{name}: record {mine}, policy {policy}")
        return wrong


def at_rest(pod: dict[str, Any]) -> bool:
    status, annotations = pod["status"], pod["metadata"].get("annotations", {})
    if pod["metadata"].get("deletionTimestamp"):
        return False
    if status["phase"] == "Running":
        return annotations.get(keys.BIND_PHASE) == keys.PHASE_SUCCESS
    if status["phase"] == "Failed":
        return bool(status.get("reason")) and bool(status.get("message"))
    conditions = {one["type"]: one for one in status.get("conditions", [])}
    return not pod["spec"].get("nodeName") and "Card" in conditions.get("PodScheduled", {}).get("message", "")


def test_whatever_is_killed_no_slice_is_given_twice_and_nothing_stays_stuck(new_lab: Any) -> None:
    lab: Lab = new_lab(nodes=1)
    lab.wait_for("service account", lambda: lab.get("serviceaccount", "default"))
    storm = Storm(lab)
    done = []
    for _ in range(ROUNDS):
        done.append(storm.round())
        assert not storm.over_committed(), done
    lab.wait_for("every pod at rest", lambda: not storm.restless(), 120)
    assert not storm.over_committed(), done
    assert not storm.wrongly_started(), done
    storm.again("delete", "pods", "--all", "--now")
    lab.wait_for("nothing taken", lambda: storm.taken_bytes() == 0, 60)
