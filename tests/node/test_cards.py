"""A node's cards as kubelet, the scheduler and people see them, while configuration and health change."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from hami.lab import Lab, obstacle
from hami.sim.cards import Bench, Rack, SimCard

pytestmark = [
    pytest.mark.lab,
    pytest.mark.node,
    pytest.mark.skipif(bool(obstacle()), reason=str(obstacle())),
]
RESOURCE = "nvidia.com/gpu"
REGISTER = "hami.io/node-nvidia-register"
HANDSHAKE = "hami.io/node-handshake"


class CardNode:
    """A kubelet with an agent on two simulated cards, which looks often."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        node = lab.nodes["node-1"]
        self.bench = Bench(node.folder / "cards.sim", Rack([SimCard(), SimCard("T4", numa=1)]))
        self.config = node.folder / "config.json"
        self.port = lab.take_port()
        lab.program(
            [
                sys.executable, "-m", "hami", "agent",
                "--node=node-1",
                f"--node-config-file={self.config}",
                f"--hook-path={node.folder / 'hook'}",
                f"--state-dir={node.folder / 'agent'}",
                f"--metrics-bind-address=127.0.0.1:{self.port}",
                "--scan-interval=0.3",
                "--register-interval=1",
                "--recovery-quiet=2",
            ],
            env=self.bench.environment,
            node=node,
            name="agent",
        )  # fmt: skip

    def configure(self, **entry: Any) -> None:
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps({"nodeconfig": [{"name": "node-1", **entry}]}))
        fresh.rename(self.config)

    def allocatable(self) -> int:
        return int(self.lab.get("node", "node-1")["status"]["allocatable"].get(RESOURCE, "0"))

    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.lab.get("node", "node-1")["metadata"].get("annotations", {})
        return found

    def registered(self) -> list[dict[str, Any]]:
        cards: list[dict[str, Any]] = json.loads(self.annotations().get(REGISTER, "[]"))
        return cards

    def healthy(self) -> dict[str, float]:
        """The health metric, by card."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("hami_host_gpu_healthy{")]
        return {line.split('device_uuid="')[1].split('"')[0]: float(line.split()[-1]) for line in found}

    def wait(self, what: str, slices: int, cards: int) -> None:
        """Until kubelet and the annotation agree on that many slices and cards."""
        self.lab.wait_for(what, lambda: (self.allocatable(), len(self.registered())) == (slices, cards), 60)

    def reasons(self) -> set[str]:
        events = json.loads(self.lab.kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
        return {event["reason"] for event in events if event["involvedObject"]["kind"] == "Node"}


@pytest.fixture(scope="module")
def node() -> Iterator[CardNode]:
    with Lab(nodes=1) as lab:
        made = CardNode(lab)
        made.wait("two cards of ten slices", 20, 2)
        yield made


def test_the_cards_are_registered_in_hamis_form(node: CardNode) -> None:
    first, second = node.registered()
    assert first == {
        "id": node.bench.uuid(0),
        "count": 10,
        "devmem": 40960,
        "devcore": 100,
        "type": "NVIDIA A100-SXM4-40GB",
        "mode": "hami-core",
        "health": True,
    }
    assert (second["index"], second["type"]) == (1, "NVIDIA-Tesla T4")


def test_the_sign_of_life_is_renewed(node: CardNode) -> None:
    before = node.annotations()[HANDSHAKE]
    assert before.startswith("Reported_")
    node.lab.wait_for("another report", lambda: node.annotations()[HANDSHAKE] != before, 60)


def test_an_annotation_that_somebody_takes_away_comes_back(node: CardNode) -> None:
    node.lab.kubectl("annotate", "node", "node-1", f"{REGISTER}-", f"{HANDSHAKE}-")
    node.lab.wait_for("registered again", lambda: len(node.registered()) == 2, 60)


def test_the_split_count_of_one_node_changes_without_a_restart(node: CardNode) -> None:
    node.configure(devicesplitcount=4)
    node.wait("two cards of four slices", 8, 2)
    assert [card["count"] for card in node.registered()] == [4, 4]
    node.configure()
    node.wait("ten slices again", 20, 2)


def test_a_filtered_card_is_absent_everywhere(node: CardNode) -> None:
    node.configure(filterdevices={"index": [0]})
    node.wait("one card", 10, 1)
    assert [card["id"] for card in node.registered()] == [node.bench.uuid(1)]
    assert set(node.healthy()) == {node.bench.uuid(1)}
    node.configure(filterdevices={"uuid": [node.bench.uuid(0), node.bench.uuid(1)]})
    node.lab.wait_for("no card", lambda: node.allocatable() == 0 and REGISTER not in node.annotations(), 60)
    node.configure()
    node.wait("both cards", 20, 2)


def test_a_broken_configuration_changes_nothing(node: CardNode) -> None:
    node.configure(devicesplitcount=4)
    node.wait("four slices", 8, 2)
    node.configure(devicesplitcounts=5)
    before = node.annotations()[HANDSHAKE]
    node.lab.wait_for("another report", lambda: node.annotations()[HANDSHAKE] != before, 60)
    assert node.allocatable() == 8
    node.configure()
    node.wait("ten slices again", 20, 2)


def test_a_sick_card_is_held_back_and_used_again_when_it_is_sound(node: CardNode) -> None:
    card = node.bench.uuid(1)
    node.bench.change(1, recovery="reset")
    node.bench.xid(1, 79)
    node.wait("half of the slices", 10, 2)
    assert ["health" in each for each in node.registered()] == [True, False]
    assert node.healthy() == {node.bench.uuid(0): 1.0, card: 0.0}
    node.lab.wait_for("told", lambda: "CardUnhealthy" in node.reasons(), 60)
    node.bench.heal(1)
    node.wait("all slices", 20, 2)
    assert node.healthy() == {node.bench.uuid(0): 1.0, card: 1.0}
    node.lab.wait_for("told", lambda: "CardHealthy" in node.reasons(), 60)


def test_a_card_that_falls_off_the_bus_stays_known_and_comes_back(node: CardNode) -> None:
    node.bench.change(0, lost=True)
    node.wait("half of the slices", 10, 2)
    assert ["health" in each for each in node.registered()] == [False, True]
    node.bench.heal(0)
    node.wait("all slices", 20, 2)
