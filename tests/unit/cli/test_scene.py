"""The demo's picture: what is read from the API server's objects, and how it is drawn."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hami.cli.commands.demo import summary
from hami.cli.demo.scene import Scene, decode, observe
from hami.cli.demo.screen import draw
from hami.cli.demo.stage import Stage, with_image
from hami.config.schema import DeviceConfig
from hami.model.errors import Malformed
from hami.sim.nodes import Shape, node_object
from hami.vendors import table

CARD = "GPU-gpu-node-0"


def pod(name: str, record: str | None = None, phase: str = "Running", waits: str = "", grant: str = "success") -> Any:
    annotations = {"hami.io/vgpu-devices-allocated": record, "hami.io/bind-phase": grant} if record else {}
    conditions = [{"type": "PodScheduled", "status": "False", "message": waits}] if waits else []
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main"}], **({} if waits else {"nodeName": "gpu-node"})},
        "status": {"phase": phase, "conditions": conditions},
    }


def scene(*pods: Any) -> Scene:
    node = {"kind": "Node", **node_object("gpu-node", Shape(cards=3, mem_mib=40000, model="NVIDIA L40S"))}
    return observe(*decode(json.dumps({"items": [node, *pods]})), table.load(DeviceConfig()))


def drawn(shown: Scene) -> str:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(draw(shown))
    return captured.get()


def test_slices_add_up_on_their_card() -> None:
    shown = scene(pod("a", f"{CARD},NVIDIA,10000,30:;"), pod("b", f"{CARD},NVIDIA,20000,60:;"))
    first = shown.cards[0]
    assert (first.mem_mib, first.core_percent, first.slots, first.pods) == (30000, 90, 2, ("a", "b"))
    assert shown.cards[1].pods == ()


def test_a_finished_pod_holds_nothing() -> None:
    assert scene(pod("done", f"{CARD},NVIDIA,10000,30:;", phase="Succeeded")).cards[0].mem_mib == 0


def test_a_pod_that_waits_says_why_without_the_appendix_on_preemption() -> None:
    waits = "0/1 nodes are available: 1 3/3 CardTypeMismatch. no new claims to deallocate, preemption: 0/1 nodes ..."
    shown = scene(pod("late", phase="Pending", waits=waits))
    assert shown.pods[0].waits_for == "0/1 nodes are available: 1 3/3 CardTypeMismatch."
    assert shown.settled


def test_a_pod_that_is_bound_but_not_granted_is_not_settled() -> None:
    assert not scene(pod("a", f"{CARD},NVIDIA,10000,30:;", phase="Pending", grant="allocating")).settled


def test_free_cards_that_are_alike_share_a_row() -> None:
    text = drawn(scene(pod("a", f"{CARD},NVIDIA,10000,30:;")))
    assert "10000 of 40000" in text
    assert " 1-2 " in text
    assert "10000 MiB of card gpu-node/0, 30 % of its time" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"--examples: .*a folder with \*.yaml files"),
        (b"a: [", "a.yaml, line 1, column 5: "),
        (b"a: 1\nb: 2\na: 3\n", "a.yaml, line 3, column 1: the key 'a' stands twice, first in line 1: leave one"),
        (b"hello", "a.yaml.*nothing but objects"),
        (b"{kind: Pod, spec: 5}", "a.yaml.*nothing but objects"),
        (b"\xeb\xb3^\xb9", "a.yaml.*text in UTF-8"),
    ],
)
def test_examples_that_cannot_be_used_are_told_before_a_cluster_starts(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(Malformed, match=said):
        Stage(tmp_path, lambda _: None)


def test_the_end_says_in_a_line_how_many_run_and_wait() -> None:
    shown = scene(
        pod("a", f"{CARD},NVIDIA,1000,0:;"),
        pod("b", phase="Pending", waits="0/1 nodes"),
        pod("c", f"{CARD},NVIDIA,1000,0:;", grant="allocating"),
    )
    assert summary(shown).startswith(
        "Pods that run: 1; that wait, with the reason above: 1; that did neither within 60 s: 1."
    )


@pytest.mark.parametrize("width", [140, 100, 80, 40])
def test_no_word_is_cut_however_narrow_the_screen_is(width: int) -> None:
    record = f"{CARD},NVIDIA,10000,30:;"
    shown = scene(pod("notebook", record), pod("inference", record), pod("late", phase="Pending", waits="1 3/3 NoCard"))
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(draw(shown, width))
    text = captured.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for told in ("gpu-node", "20000 of 40000", "notebook", "inference", "NoCard"):
        assert told in text


def test_images_are_replaced_in_pods_and_in_templates_and_nowhere_else() -> None:
    containers = {"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "image": "y"}]}
    replaced = {"initContainers": [{"name": "i", "image": "z"}], "containers": [{"name": "c", "image": "z"}]}
    assert with_image({"kind": "Pod", "spec": containers}, "z") == {"kind": "Pod", "spec": replaced}
    job = {"kind": "Job", "spec": {"backoffLimit": 2, "template": {"metadata": {}, "spec": containers}}}
    assert with_image(job, "z")["spec"] == {"backoffLimit": 2, "template": {"metadata": {}, "spec": replaced}}
    assert with_image({"kind": "ConfigMap", "data": {}}, "z") == {"kind": "ConfigMap", "data": {}}
