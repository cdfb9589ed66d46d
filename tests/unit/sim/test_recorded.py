"""Files that `hami record` wrote, replayed."""

from pathlib import Path
from typing import Any

import pytest

from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.sim.traces import experiment, files, trace
from hami.sim.traces.trace import UNKNOWN, Job, Machine, Trace
from hami.wire import record, snapshot
from hami.wire.record import NodeSeen, PodArrived, PodBound, PodLeft, Start, Synced
from hami.wire.snapshot import (
    AskEntry,
    CardAskEntry,
    CardEntry,
    ContainerEntry,
    NodeEntry,
    PodEntry,
    RulesEntry,
    Snapshot,
)


def node(name: str, cards: int, model: str = "NVIDIA A10", family: str = "NVIDIA", mem: int = 20_000) -> NodeEntry:
    entries = tuple(CardEntry(CardId(f"{name}/{n}"), Family(family), model, n, 10, mem) for n in range(cards))
    return NodeEntry(NodeName(name), entries, cpu_milli=64_000, mem_bytes=2**38)


def pod(uid: str, mem: int | None, *, cards: int = 1, family: str = "NVIDIA", **more: object) -> PodEntry:
    ask = CardAskEntry(Family(family), cards, 30, mem, None if mem is not None else 50, **more)  # type: ignore[arg-type]
    entry = AskEntry((ContainerEntry("init"), ContainerEntry("main", cards=(ask,))))
    return PodEntry("ns", f"pod-{uid}", PodUid(uid), entry, created=0.0, cpu_milli=2000, mem_bytes=2**30)


def written(path: Path, *lines: record.Line) -> Path:
    path.write_bytes(b"".join(map(record.encode, (Start(1000.0), *lines))))
    return path


def test_a_recorded_day_is_a_trace_with_the_times_that_were_seen(tmp_path: Path) -> None:
    path = written(
        tmp_path / "day.jsonl",
        NodeSeen(1000.1, node("n1", 2)),
        Synced(1000.2),
        PodArrived(1010.0, pod("a", 5000)),
        PodBound(1015.0, PodUid("a"), NodeName("n1")),
        PodArrived(1020.0, pod("b", None)),
        PodLeft(1075.0, PodUid("a"), "Succeeded"),
        PodBound(1080.0, PodUid("b"), NodeName("n1")),
    )
    assert files.machines(path) == (Machine("n1", 64_000, 2**18, 2, "NVIDIA A10", 20_000, 100, 10),)
    assert files.jobs(path) == (
        Job("a", 2000, 1024, 1, 5000, 30, arrives=10.0, leaves=70.0),  # it waited 5 s and ran a minute
        Job("b", 2000, 1024, 1, card_core=30, card_percent=50, arrives=20.0),
    )


def test_what_ran_before_is_there_at_the_start_with_the_rest_of_its_life(tmp_path: Path) -> None:
    old = pod("old", 5000)
    bound = PodEntry(old.namespace, old.name, old.uid, old.ask, NodeName("n1"), created=400.0, bound=500.0)
    path = written(
        tmp_path / "r.jsonl", NodeSeen(1000.0, node("n1", 1)), PodArrived(1000.0, bound), PodLeft(1030.0, old.uid)
    )
    (job,) = files.jobs(path)
    assert (job.arrives, job.leaves) == (0.0, 30.0)


def test_who_never_ran_has_no_life_time_and_is_left_out(tmp_path: Path) -> None:
    lines = (NodeSeen(1000.0, node("n1", 1)), PodArrived(1001.0, pod("a", 1)), PodLeft(1002.0, PodUid("a"), "Deleted"))
    assert files.jobs(written(tmp_path / "r.jsonl", *lines)) == ()


def test_families_are_told_apart_by_their_models(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r.jsonl",
        NodeSeen(1000.0, node("n1", 1)),
        NodeSeen(1000.0, node("m1", 1, "MLU370-X8", "MLU", 24_000)),
        PodArrived(1001.0, pod("a", 5000, family="MLU")),
        PodArrived(1002.0, pod("b", 5000, rules=RulesEntry(use_types=("A10",)))),
    )
    assert [job.models for job in files.jobs(path)] == [("MLU370-X8",), ("A10",)]


def test_lines_of_json_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe has nothing the second time."""
    (tmp_path / "t.jsonl").write_bytes(trace.encode(Trace((), (Job("p"),))).encode())
    opened: list[Path] = []
    ready = Path.open

    def counted(self: Path, *words: Any) -> Any:
        opened.append(self)
        return ready(self, *words)

    monkeypatch.setattr(Path, "open", counted)
    assert files.jobs(tmp_path / "t.jsonl") == (Job("p"),)
    assert opened == [tmp_path / "t.jsonl"]


def test_a_snapshot_is_a_list_of_pods(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    bare = NodeEntry(NodeName("bare"))
    path.write_bytes(snapshot.encode(Snapshot(5.0, (bare, node("n1", 4)), (pod("a", 5000), pod("b", 7000, cards=2)))))
    assert [machine.name for machine in files.machines(path)] == ["n1"]
    assert [(job.cards, job.card_mem, job.leaves) for job in files.jobs(path)] == [(1, 5000, None), (2, 7000, None)]


def test_hosts_nobody_measured_are_no_limit(tmp_path: Path) -> None:
    plain = NodeEntry(NodeName("n1"), node("n1", 1).cards)
    (machine,) = files.machines(written(tmp_path / "r.jsonl", NodeSeen(1000.0, plain)))
    assert (machine.cpu_milli, machine.mem_mib) == (UNKNOWN, UNKNOWN)


def test_a_record_is_replayed_like_any_trace(tmp_path: Path) -> None:
    lines: list[record.Line] = [NodeSeen(1000.0, node("n1", 2))]
    for number in range(9):
        uid = PodUid(f"p{number}")
        lines += [PodArrived(1001.0 + number, pod(uid, 15_000)), PodBound(1002.0 + number, uid, NodeName("n1"))]
        lines.append(PodLeft(1022.0 + number, uid, "Succeeded"))
    path = written(tmp_path / "r.jsonl", *lines)
    setting = experiment.Setting(files.machines(path), files.jobs(path), departures=True)
    outcome = experiment.run(setting, "pack", 1)
    assert (outcome.placed, outcome.failed) == (9, 0)  # two at a time, twenty seconds each
    assert outcome.waits is not None
    assert outcome.waits.waited == 7


def test_a_record_without_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="no node with cards"):
        files.jobs(written(tmp_path / "r.jsonl", Synced(1000.0)))


def test_a_percentage_is_of_whichever_card_a_pod_gets_and_types_not_wanted_are_left_out(tmp_path: Path) -> None:
    lines: list[record.Line] = [NodeSeen(1000.0, node("large", 1, "NVIDIA L40S", mem=46_000))]
    lines.append(NodeSeen(1000.0, node("small", 1, mem=20_000)))
    lines.append(PodArrived(1001.0, pod("no-l40s", 100, rules=RulesEntry(nouse_types=("l40",)))))
    lines.append(PodArrived(1002.0, pod("neither", 100, rules=RulesEntry(nouse_types=("nvidia",)))))
    lines += [PodArrived(1003.0 + number, pod(f"half{number}", None)) for number in range(3)]
    path = written(tmp_path / "day.jsonl", *lines)
    jobs = {job.name: job for job in files.jobs(path)}
    assert jobs["no-l40s"].models == ("NVIDIA A10",)
    setting = experiment.Setting(files.machines(path), files.jobs(path), departures=True)
    for policy in ("binpack", "best-fit", "fgd"):
        outcome = experiment.run(setting, policy, 1)
        assert (outcome.placed, outcome.failed) == (4, 1), "two halves of one card, one of the other"
