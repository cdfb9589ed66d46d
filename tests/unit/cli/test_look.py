"""explain, fit, frag and record from a file: what they print, and exit statuses that mean something."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from rich.console import Console
from tests.unit.plan.builders import app, pod, want

from hami.cli.look import pictures, recording
from hami.cli.main import hami
from hami.config.schema import DeviceConfig
from hami.kube.reflector import Added, Deleted, Modified, Synced
from hami.ledger.filed import rebuilt
from hami.model.ask import NodePolicy, Policies
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Slice
from hami.model.quota import Measure
from hami.plan.advice.explain import CardUse
from hami.scheduler.api.answers import Explained
from hami.scheduler.budgets import DisruptionBudget, budget_entries
from hami.scheduler.watch.entries import DatedPod
from hami.vendors.table import load
from hami.wire import record, snapshot
from hami.wire.objects import Node
from hami.wire.snapshot import (
    AskEntry,
    BudgetEntry,
    CardEntry,
    LimitEntry,
    NodeEntry,
    PodEntry,
    QuotaEntry,
    Snapshot,
)

NVIDIA = Family("NVIDIA")


def half_full(budget: int = 1) -> Snapshot:
    """Two nodes of one L40S, each with a pod of 20000 MiB and 50 %; one pod waits for a whole card."""
    nodes = tuple(
        NodeEntry(NodeName(f"n{number}"), (CardEntry(CardId(f"d{number}"), NVIDIA, "NVIDIA L40S", 0, 10, 46000),))
        for number in (0, 1)
    )
    pods = [
        PodEntry(
            "team",
            f"p{number}",
            PodUid(f"p{number}"),
            AskEntry.of(pod(app(want(20000, cores=50)))),
            NodeName(f"n{number}"),
            ((Slice(CardId(f"d{number}"), NVIDIA, 20000, 50),),),
        )
        for number in (0, 1)
    ]
    pods.append(PodEntry("team", "waits", PodUid("w"), AskEntry.of(pod(app(want(46000, cores=50))))))
    return Snapshot(1.0, nodes, tuple(pods), (BudgetEntry("team", "b", budget, (PodUid("p0"), PodUid("p1"))),))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.json"
    path.write_bytes(snapshot.encode(half_full()))
    return str(path)


def run(*words: str) -> Result:
    return CliRunner().invoke(hami, words)


def test_explain_names_the_missing_memory_and_the_fix(file: str) -> None:
    done = run("explain", "pod", "team/waits", "--snapshot", file)
    assert done.exit_code == 1
    assert "missing 20000 MiB on the best card" in done.output
    assert "ask at most 26000 MiB a card" in done.output
    assert "█" in done.output
    answer = json.loads(run("explain", "pod", "waits", "-n", "team", "--snapshot", file, "-o", "json").output)
    assert (answer["kind"], answer["fits"], answer["fixes"][0]["value"]) == ("hami.io/explained", False, 26000)


def test_a_pod_that_waits_though_its_cards_are_there_is_sent_to_kube_scheduler_s_words(tmp_path: Path) -> None:
    path, told = tmp_path / "cluster.json", half_full()
    small = PodEntry("team", "small", PodUid("s"), AskEntry.of(pod(app(want(100)))))
    path.write_bytes(snapshot.encode(replace(told, pods=(*told.pods, small))))
    done = run("explain", "pod", "team/small", "--snapshot", str(path))
    assert (done.exit_code, "note: its cards are there" in done.output) == (0, True)
    assert "note:" not in run("explain", "pod", "team/p0", "--snapshot", str(path)).output


def test_a_pod_that_asks_for_no_card_is_wrong_input(tmp_path: Path) -> None:
    seen = half_full()
    idle = PodEntry("team", "idle", PodUid("i"), AskEntry.of(pod(app())))
    (tmp_path / "c.json").write_bytes(snapshot.encode(replace(seen, pods=(*seen.pods, idle))))
    fault = run("explain", "pod", "team/idle", "--snapshot", str(tmp_path / "c.json")).exception
    assert isinstance(fault, Malformed)
    assert "team/idle: 'no card asked' is not usable: a pod that asks for cards" in str(fault)


def test_explain_of_a_bound_pod_shows_where_it_is(file: str) -> None:
    done = run("explain", "pod", "team/p0", "--snapshot", file)
    assert (done.exit_code, "is bound to n0" in done.output) == (0, True)


def test_fit_says_by_its_exit_status_whether_it_fits(file: str) -> None:
    """Row 5.15."""
    fits = run("fit", "--gpumem", "26000", "--gpucores", "50", "--snapshot", file)
    assert (fits.exit_code, "fits on 2 of 2 nodes" in fits.output) == (0, True)
    two = run("fit", "--gpu", "2", "--gpumem", "10000", "--gpucores", "40", "--snapshot", file, "-o", "json")
    assert two.exit_code == 1
    assert json.loads(two.output)["refused"][0]["text"] == "NodeInsufficientDevice: asks 2 cards, the node has 1"
    typed = run("fit", "--gpumem", "100", "--type", "H100", "--snapshot", file, "-o", "json")
    assert (typed.exit_code, json.loads(typed.output)["fixes"][0]["model"]) == (1, "NVIDIA L40S")


def test_fit_reads_a_manifest(file: str, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    limits = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 30000}
    container = {"name": "c", "resources": {"limits": limits}}
    manifest.write_text(json.dumps({"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}))
    assert run("fit", "-f", str(manifest), "--snapshot", file).exit_code == 1
    manifest.write_text("kind: Deployment")
    fault = run("fit", "-f", str(manifest), "--snapshot", file).exception
    assert isinstance(fault, Malformed)
    assert str(fault) == f"{manifest} has nothing at spec.template: there the pod would stand"
    manifest.write_text("kind: [Pod]")
    fault = run("fit", "-f", str(manifest), "--snapshot", file).exception
    assert isinstance(fault, Malformed)
    assert str(fault).startswith(f"{manifest} makes no pods: its kind is ['Pod']; ")


@pytest.mark.parametrize(
    ("metadata", "there"),
    [("", "team"), ("metadata:", "team"), ("metadata: {namespace: }", "team"), ("metadata: {namespace: own}", "own")],
)
def test_a_manifest_that_names_no_namespace_is_of_the_one_that_is_given(
    file: str, tmp_path: Path, metadata: str, there: str
) -> None:
    """As for kubectl, to which a key without a value is none."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        f"kind: Pod\n{metadata}\nspec: {{containers: [{{name: c, resources: {{limits: {{nvidia.com/gpu: 1}}}}}}]}}\n"
    )
    told = run("fit", "-f", str(manifest), "-n", "team", "--snapshot", file, "-o", "json")
    assert json.loads(told.output)["pod"]["namespace"] == there


@pytest.mark.parametrize(
    "words",
    [
        ("fit",),
        ("fit", "--gpucores", "101"),
        ("fit", "--limit", "gpumem"),
        ("explain", "pod", "a/b/c"),
        ("explain", "team/waits"),
        ("fit", "-f", __file__, "--gpu", "1"),
        ("record", "--for", "nan"),
        ("record", "--gpu-scheduler-policy", "mutex,fast"),
        ("record", "--node-scheduler-policy", "mutex"),
        ("record", "--for", "0"),
        ("frag", "--most-moves", "99"),
    ],
)
def test_wrong_use_ends_with_2(words: tuple[str, ...], file: str) -> None:
    assert run(*words, *(("--snapshot", file) if words[0] != "record" else ())).exit_code == 2


def test_frag_shows_the_number_before_and_after_the_fewest_moves(file: str) -> None:
    """Row 6.19."""
    found = json.loads(run("frag", "--snapshot", file, "-o", "json").output)
    assert found["target"] == "1 x 46000 MiB, 50 %"
    moves = [(move["pod"]["name"], move["source"], move["plan"]["node"]) for move in found["moves"]]
    assert moves == [("p0", "n0", "n1")]
    assert found["after"]["percent"] < found["fragmentation"]["percent"]
    rooms = {room["name"]: room["fits"] for room in found["fragmentation"]["rooms"]}
    assert (rooms["a whole card"], rooms["1 x 20000 MiB, 50 %"]) == (0, 2)
    drawn = run("frag", "--snapshot", file)
    assert (drawn.exit_code, "nothing is moved" in " ".join(drawn.output.split())) == (0, True)


@pytest.mark.parametrize("better", [(NodePolicy.BINPACK, ("binpack",)), (NodePolicy.PACK, ("spread",))])
def test_the_number_goes_down_where_a_policy_is_changed_for_a_better_one(
    tmp_path: Path, better: tuple[NodePolicy, tuple[str, ...]]
) -> None:
    """Row 6.19: the same pods, placed by one policy and by the other."""
    found = []
    for nodes, cards in ((NodePolicy.SPREAD, ("spread",)), better):
        path = tmp_path / f"{nodes.value}.json"
        path.write_bytes(snapshot.encode(placed(nodes, cards)))
        found.append(json.loads(run("frag", "--snapshot", str(path), "-o", "json").output)["fragmentation"]["percent"])
    assert found[1] < found[0] / 2


def placed(nodes: NodePolicy, cards: tuple[str, ...]) -> Snapshot:
    """Eight pods for a quarter of a card each, on four nodes of two cards; three more wait for whole cards."""
    machines = []
    for node in range(4):
        own = (CardEntry(CardId(f"n{node}-{place}"), NVIDIA, "L40S", place, 10, 46000) for place in (0, 1))
        machines.append(NodeEntry(NodeName(f"n{node}"), tuple(own)))
    whole = AskEntry.of(pod(app(want(46000, cores=100))))
    told = Snapshot(1.0, tuple(machines), tuple(PodEntry("ns", f"w{n}", PodUid(f"w{n}"), whole) for n in range(3)))
    for number in range(8):
        ask = pod(app(want(11500, cores=25)), uid=f"p{number}", nodes=nodes, cards=cards)
        plan = rebuilt(told).ledger.decide(ask).plan
        assert plan is not None
        entry = PodEntry("ns", f"p{number}", PodUid(f"p{number}"), AskEntry.of(ask), plan.node, plan.containers)
        told = replace(told, pods=(*told.pods, entry))
    return told


def test_frag_moves_nobody_whom_a_budget_protects(tmp_path: Path) -> None:
    path = tmp_path / "guarded.json"
    path.write_bytes(snapshot.encode(half_full(budget=0)))
    found = json.loads(run("frag", "--snapshot", str(path), "-o", "json").output)
    assert (found["moves"], found["searched"]) == ([], "none exist")


def test_frag_makes_room_for_an_ask_that_is_named(file: str) -> None:
    found = json.loads(run("frag", "--gpumem", "40000", "--gpucores", "10", "--snapshot", file, "-o", "json").output)
    assert (found["target"], len(found["moves"])) == ("the ask named", 1)


def limited(most: int) -> Snapshot:
    """The namespace `team` may have so many MiB; 40000 are taken."""
    limit = LimitEntry("nvidia.com/gpumem", NVIDIA, Measure.MEMORY, most)
    return replace(half_full(), quotas=(QuotaEntry("team", "q", (limit,)),))


@pytest.mark.parametrize(("most", "status"), [(45_000, 0), (44_999, 1)])
def test_a_quota_in_the_file_counts(tmp_path: Path, most: int, status: int) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(snapshot.encode(limited(most)))
    ask = ("fit", "--gpumem", "5000", "--gpucores", "10", "--snapshot", str(path))
    assert run(*ask, "-n", "team").exit_code == status
    assert run(*ask, "-n", "other").exit_code == 0
    answer = json.loads(run(*ask, "-n", "team", "-o", "json").output)
    assert status == 0 or answer["fixes"][0]["value"] == 4999


LIMITS = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 30000}
MADE = {"spec": {"containers": [{"name": "c", "resources": {"limits": LIMITS}}]}}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"kind": "Pod", **MADE}, "does not fit"),
        ({"kind": "Deployment", "spec": {"template": MADE}}, "does not fit"),
        ({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": MADE}}}}, "does not fit"),
        ({"kind": "Service"}, "makes no pods: its kind is Service"),
        ({}, "makes no pods: it has no kind"),
        ({"kind": "Job", "spec": {}}, "has nothing at spec.template"),
        ({"kind": "Pod", "spec": {**MADE["spec"], "nodeName": "n0"}}, "pod has node assigned"),
        (
            {"kind": "Pod", "spec": {"containers": [{"name": "c", "securityContext": {"privileged": True},
                                                     "resources": {"limits": LIMITS}}]}},
            "container c is privileged",
        ),
        ({"kind": "Pod", "metadata": {"annotations": {"hami.io/vgpu-node": "n0"}}, **MADE}, "by the scheduler only"),
    ],
)  # fmt: skip
def test_a_manifest_is_judged_as_the_webhook_would(
    file: str, tmp_path: Path, manifest: dict[str, Any], said: str
) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(hami, ("fit", "-f", str(path), "--snapshot", file), standalone_mode=False)
    fault = getattr(done.exception, "message", str(done.exception)) if done.exception else ""
    assert said in done.output + str(fault)


def test_a_manifest_s_own_namespace_comes_before_the_one_named(tmp_path: Path) -> None:
    path, manifest = tmp_path / "cluster.json", tmp_path / "it.yaml"
    path.write_bytes(snapshot.encode(limited(40_000)))
    small = {
        "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpumem": 10, "nvidia.com/gpucores": 1}}}]
    }
    for metadata, status in (({"namespace": "team"}, 1), ({}, 0)):
        made = {"kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": small}}}
        manifest.write_text(json.dumps(made))
        assert run("fit", "-f", str(manifest), "--snapshot", str(path)).exit_code == status
    assert run("fit", "-f", str(manifest), "-n", "team", "--snapshot", str(path)).exit_code == 1


def test_words_that_count_for_nothing_are_told_beside_the_answer(file: str) -> None:
    done = run("fit", "--gpumem", "10", "--annotation", "hami.io/node-scheduler-policy=pakc", "--snapshot", file)
    assert "note: metadata.annotations[hami.io/node-scheduler-policy]: 'pakc' counts for nothing" in done.output


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    """`[/x]` would end a style that was never begun, which is a fault; `:x:` would be a picture."""
    text = snapshot.encode(half_full()).replace(b'"n0"', b'"n[/x]:x:"').replace(b"NVIDIA L40S", b"[red]L40S[/y]")
    (tmp_path / "odd.json").write_bytes(text)
    for words in (("explain", "pod", "team/waits"), ("fit", "--gpumem", "1000"), ("frag",)):
        done = run(*words, "--snapshot", str(tmp_path / "odd.json"))
        assert done.exit_code in (0, 1)
        assert "n[/x]:x:" in done.output
        assert words[0] == "frag" or "[red]L40S[/y]" in done.output


@pytest.mark.parametrize("odd", [r"\u001b[2J", r"\u009b2J", "\x9b2J", "\x7f", r"\\\u001B", r"a\rb"])
def test_a_file_whose_names_would_steer_the_terminal_is_refused(tmp_path: Path, odd: str) -> None:
    body = snapshot.encode(half_full()).replace(b"NVIDIA L40S", odd.encode())
    with pytest.raises(Malformed, match="names without control characters"):
        snapshot.decode(body)


def test_a_file_whose_names_only_look_like_that_is_read() -> None:
    body = snapshot.encode(half_full()).replace(b"NVIDIA L40S", rb"\\u001b \n")
    assert snapshot.decode(body).nodes[0].cards[0].model == "\\u001b \n"


def test_at_80_columns_no_word_is_cut(file: str) -> None:
    for words in (("explain", "pod", "team/waits"), ("fit", "--gpu", "2", "--gpumem", "9"), ("frag",)):
        done = CliRunner().invoke(hami, (*words, "--snapshot", file), env={"COLUMNS": "80"}, color=False)
        assert "…" not in done.output
    console = Console(width=80, record=True, file=StringIO())
    answer = msgspec.json.decode(
        run("explain", "pod", "team/waits", "--snapshot", file, "-o", "json").output, type=Explained
    )
    console.print(pictures.explained(answer, True, console.width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert " 0: CardInsufficientMemory: needs 46000 MiB, has 26000" in text


def test_a_large_cluster_s_picture_stops_and_says_so() -> None:
    console = Console(width=80, record=True, file=StringIO())
    use = CardUse(CardId("d"), "L40S", 0, 10, 0, 46000, 0, 100, 0)
    console.print(pictures.cards([(f"n{number:03}", (use,) * 16) for number in range(70)]))
    text = console.export_text()
    assert "and 20 nodes more: -o json has all" in " ".join(text.split())
    assert "n049" in text
    assert "n050" not in text


def test_every_command_teaches() -> None:
    for words in (("explain", "pod"), ("fit",), ("frag",), ("record",)):
        done = run(*words, "--help")
        assert (done.exit_code, "Exit status" in done.output) == (0, True)


# -- recording


def kubernetes_pod(**fields: Any) -> DatedPod:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "2000", "cpu": "500m", "memory": "1Gi"}
    body: dict[str, Any] = {
        "metadata": {
            "namespace": "ns",
            "name": "p",
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "x"},
            "annotations": fields.pop("annotations", {}),
        },
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}], **fields.pop("spec", {})},
        "status": fields.pop("status", {}),
    }
    return msgspec.convert(body, DatedPod)


BOUND = {
    "spec": {"nodeName": "n"},
    "annotations": {"hami.io/vgpu-devices-allocated": "d0,NVIDIA,2000,0:;", "hami.io/vgpu-node": "n"},
}


def recorder() -> tuple[recording.Recorder, list[record.Line]]:
    lines: list[record.Line] = []
    return recording.Recorder(load(DeviceConfig()), Policies(), lines.append, lambda: 9.0), lines


def test_a_pod_arrives_is_bound_and_leaves_once_each() -> None:
    watch, lines = recorder()
    waiting, bound = kubernetes_pod(), kubernetes_pod(**BOUND)
    for event in (Added(waiting), Modified(waiting), Synced(1, "1"), Modified(bound), Modified(bound)):
        watch.pod(event)
    watch.node(Synced(0, "1"))
    watch.pod(Modified(kubernetes_pod(**BOUND, status={"phase": "Succeeded"})))
    watch.pod(Deleted("ns", "p", "u"))
    arrived, told_bound, synced, left = lines
    assert isinstance(arrived, record.PodArrived)
    assert (arrived.pod.created, arrived.pod.cpu_milli, arrived.pod.mem_bytes) == (1767225600.0, 500, 1 << 30)
    slices = ((Slice(CardId("d0"), NVIDIA, 2000, 0),),)
    assert told_bound == record.PodBound(9.0, PodUid("u"), NodeName("n"), slices)
    assert (synced, left) == (record.Synced(9.0), record.PodLeft(9.0, PodUid("u"), "Succeeded"))


def test_pods_without_cards_and_nodes_without_register_are_not_recorded() -> None:
    watch, lines = recorder()
    plain = msgspec.convert({"metadata": {"name": "x", "uid": "x"}, "spec": {"containers": [{"name": "c"}]}}, DatedPod)
    watch.pod(Added(plain))
    watch.pod(Deleted("", "x", "x"))
    watch.node(Added(msgspec.convert({"metadata": {"name": "n"}}, Node)))
    assert lines == []


def test_budgets_cover_by_kubernetes_rules() -> None:
    def covered(selector: object) -> bool:
        body = {"metadata": {"namespace": "ns", "name": "b"}, "spec": {"selector": selector}, "status": {}}
        return bool(budget_entries([msgspec.convert(body, DisruptionBudget)], [kubernetes_pod()]))

    assert covered({"matchLabels": {"app": "x"}})
    assert covered({})
    assert covered({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]})
    assert covered({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]})
    assert not covered({"matchLabels": {"app": "y"}})
    assert not covered({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]})
    assert not covered(None)
