import json
import re
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from hami.cli.commands.simulate import command, range_of
from hami.cli.look import replays
from hami.cli.look.replays import shown
from hami.cli.main import hami
from hami.model.errors import Malformed
from hami.sim.traces import charts, experiment
from hami.sim.traces.replay import Outcome, Point, Waits

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,64000,262144,2,T4\nn2,96000,400000,8,G2\n"
HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
PODS = HEAD + "".join(f"p{n},1000,100,1,{(470, 810, 1000)[n % 3]},,LS,Running,{n},{n + 40},{n}\n" for n in range(12))


@pytest.fixture
def simulate(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "pods.csv").write_text(PODS)

    def run(*arguments: str) -> Result:
        files = ["--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv")]
        return CliRunner().invoke(command, [*files, *arguments])

    return run


def test_one_run_as_json_has_the_keys_that_other_tools_read(simulate) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(simulate("--policy", "pack", "--inflate", "1.3", "--seed", "7", "-o", "json").stdout)
    assert {"policy", "seed", "gpu_allocation_percent", "placed", "failed", "seconds"} <= set(found)
    assert (found["policy"], found["seed"]) == ("pack", 7)
    assert found["failed"] == sum(found["failures"].values())


def test_several_policies_and_seeds_stand_side_by_side(simulate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    chart = tmp_path / "curves.svg"
    found = simulate("--policy", "fgd", "--policy", "pack", "--seeds", "1-2", "-o", "json", "--chart", str(chart))
    body = json.loads(found.stdout)
    assert [(run["policy"], run["seed"]) for run in body["runs"]] == [("fgd", 1), ("fgd", 2), ("pack", 1), ("pack", 2)]
    assert [row["policy"] for row in body["policies"]] == ["fgd", "pack"]
    assert chart.read_text().startswith("<svg")


def test_the_table_says_why_pods_failed(simulate) -> None:  # type: ignore[no-untyped-def]
    text = simulate("--policy", "binpack").stdout
    assert "allocated" in text
    assert "CardInsufficientMemory" in text


def test_waiting_times_come_with_departures(simulate) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(simulate("--departures", "-o", "json").stdout)
    assert (found["placed"], found["failed"]) == (12, 0)
    assert found["waits"]["waited"] == 0 or found["waits"]["mean"] > 0


def test_a_steady_load_is_asked_for_by_one_option(simulate) -> None:  # type: ignore[no-untyped-def]
    arguments = ("--load", "0.5", "--hours", "0.2", "--longest", "0.1", "--ties", "random", "-o", "json")
    found = json.loads(simulate(*arguments).stdout)
    assert 30 < found["gpu_allocation_percent"] < 70
    assert found["waits"]["mean"] >= 0


def test_every_policy_is_listed_without_files() -> None:
    text = CliRunner().invoke(command, ["--list-policies"]).stdout.split()
    assert text == [
        "binpack",
        "spread",
        "pack",
        "random",
        "best-fit",
        "dot-product",
        "gpu-packing",
        "gpu-clustering",
        "fgd",
    ]


@pytest.mark.parametrize("text", ["5", "9-3", "a-b", "1-5000"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="first and the last"):
        range_of(text)


def test_a_table_of_another_cluster_is_replayed_by_naming_its_columns(tmp_path: Path) -> None:
    (tmp_path / "machines.csv").write_text("host,gpus,cores,ram_gb\nm1,4,32,256\nm2,8,64,512\n")
    pods = "name=jobid,cards=gpu_num,cpu_milli=cpus*1000,card_core=percent,arrives=submitted,leaves=finished?"
    rows = "".join(f"job-{n},{1 + n % 2},4,100,{n * 10},{'' if n == 11 else n * 10 + 300}\n" for n in range(12))
    (tmp_path / "jobs.csv").write_text("jobid,gpu_num,cpus,percent,submitted,finished\n" + rows)
    found = CliRunner().invoke(
        command,
        ["--nodes", str(tmp_path / "machines.csv"), "--pods", str(tmp_path / "jobs.csv"), "--departures", "-o", "json",
         "--node-columns", "name=host,cards=gpus,cpu_milli=cores*1000,mem_mib=ram_gb*1024",
         "--pod-columns", pods],
    )  # fmt: skip
    body = json.loads(found.stdout)
    assert (body["placed"], body["failed"]) == (12, 0)
    assert body["waits"]["waited"] > 0  # 18 GPUs asked for within two minutes, 12 are there


def test_what_hami_record_wrote_is_nodes_and_pods_in_one_file(tmp_path: Path) -> None:  # 6.20
    from hami.model.ids import CardId, Family, NodeName, PodUid
    from hami.wire import record
    from hami.wire.snapshot import AskEntry, CardAskEntry, CardEntry, ContainerEntry, NodeEntry, PodEntry

    node = NodeEntry(NodeName("n1"), (CardEntry(CardId("c"), Family("NVIDIA"), "L40S", 0, 10, 46_000),))
    ask = AskEntry((ContainerEntry("main", cards=(CardAskEntry(Family("NVIDIA"), 1, 30, 16_000),)),))
    lines = [record.Start(100.0), record.NodeSeen(100.0, node)]
    lines += [record.PodArrived(101.0 + n, PodEntry("ns", f"p{n}", PodUid(f"u{n}"), ask)) for n in range(3)]
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"".join(map(record.encode, lines)))
    found = CliRunner().invoke(command, ["--nodes", str(path), "--pods", str(path), "--departures", "-o", "json"])
    body = json.loads(found.stdout)
    assert (body["placed"], body["failed"]) == (2, 1)
    assert body["failures"] == {"still waiting at the end": 1}
    both = ("--policy", "binpack", "--policy", "pack", "--departures", "-o", "json")
    rows = json.loads(CliRunner().invoke(command, ["--nodes", str(path), "--pods", str(path), *both]).stdout)[
        "policies"
    ]
    assert [(row["policy"], row["placed"]) for row in rows] == [("binpack", 2), ("pack", 2)]
    assert rows[0]["against"] == rows[0]["allocation"] - rows[1]["allocation"]
    assert all(row["fragmented"] >= 0 for row in rows)


# -- wrong inputs: the field, the value, the way out, and no replay is begun


@pytest.fixture
def refused(simulate: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """What is said of wrong use, which ends with 2, of `nodes` and `pods` as they stand in their files."""

    def run(*arguments: str, nodes: str | None = None, pods: str | None = None) -> str:
        for name, text in (("nodes.csv", nodes), ("pods.csv", pods)):
            if text is not None:
                (tmp_path / name).write_text(text)
        files = ["--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv")]
        done = CliRunner().invoke(hami, ["simulate", *files, *arguments], standalone_mode=False)
        assert done.exception is not None
        assert not isinstance(done.exception, SystemExit)
        return str(getattr(done.exception, "message", done.exception))

    return run


ROW = "p1,1000,100,1,470,,LS,Running,1,5,1\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("470", "-5"), "pods.csv:2.card_mem: -5.* 0 or more"),
        (ROW.replace("470", "NaN"), "pods.csv:2.gpu_milli: 'NaN'.* a number"),
        (ROW.replace("470", "1e400"), "pods.csv:2.gpu_milli: '1e400'.* 1000000000000 or less"),
        (ROW.replace("470", "1e99999999999999999999"), "pods.csv:2.gpu_milli: '1e9+'.* a number"),
        (ROW.replace("470", "9" * 15), "pods.csv:2.card_mem: 9+ .* 1000000000000 or less"),
        (ROW.replace("1,470", "1.5,470"), "pods.csv:2.num_gpu: '1.5'.* a whole number of cards"),
        (ROW.replace("1,470", "4000,470"), "pods.csv:2.cards: 4000.* 1024 or less"),
        (ROW + ROW, "pods.csv: 'p1'.* each name once"),
        (ROW + "p2,1000,100,1,4", "pods.csv:3: 'p2,1000,100,1,4'.* 11 columns, as in the first line; this one has 5"),
        (ROW[:-1] + ",9\n", "11 columns, as in the first line; this one has 12"),
        ("", "--pods: 'no pod' .* at least one pod"),
    ],
)
def test_a_pod_that_cannot_be_meant_is_named_to_the_cell(refused: Callable[..., str], row: str, said: str) -> None:
    assert_says(refused(pods=HEAD + row), said)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("", "nodes.csv:1: ''.* sn, cpu_milli, memory_mib, gpu, model too, or --node-columns FIELD=COLUMN"),
        ("sn,cpu_milli\nn1,1\n", "a header with memory_mib, gpu, model too"),
        (NODES.splitlines()[0] + "\n", "--nodes: 'no node with a card'"),
        (NODES.replace(",2,", ",0,").replace(",8,", ",0,"), "--nodes: 'no node with a card'"),
        (NODES.replace(",8,", ",100000,"), "nodes.csv:3.cards: 100000.* 1024 or less"),
        (NODES[:-8], "nodes.csv:3: .* 5 columns"),
    ],
)
def test_nodes_that_cannot_be_meant_are_named_to_the_cell(refused: Callable[..., str], nodes: str, said: str) -> None:
    assert_says(refused(nodes=nodes), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "pack", "--policy", "Pack"), "--policy: 'Pack'.* one of binpack, spread, pack"),
        (("--inflate", "nan"), "no number one can count with"),
        (("--load", "nan"), "no number one can count with"),
        (("--load", "0.9", "--hours", "inf"), "not in the range"),
        (("--departures", "--compress", "1e-300"), "not in the range"),
        (("--patience", "inf"), "no number one can count with"),
        (("--chart", "curves.png"), "'curves.png': charts are SVG"),
        (("--chart", "nowhere/curves.svg"), "there is no folder .*/nowhere"),
        (("--pod-columns", "cards"), "--pod-columns: 'cards'"),
        (("--node-columns", "name=sn"), "--node-columns: 'name=sn'.* a column for cards too"),
        (("--seed", "-1"), "-1 is not in the range x>=0"),
        (("--seeds", "²-³"), "give the first and the last seed"),
        (("--seeds", "9" * 5000 + "-" + "9" * 5000), "give the first and the last seed"),
        (("--seeds", "1-2", "--seed", "3"), "--seed counts for nothing beside --seeds"),
        (("--load", "0.9", "--inflate", "1.3"), "--inflate counts for nothing beside --load"),
        (("--departures", "--inflate", "1.3"), "--inflate counts for nothing beside --departures"),
        (("--load", "0.9", "--departures"), "--departures counts for nothing beside --load"),
        (("--load", "0.9", "--compress", "2"), "--compress counts for nothing beside --load"),
        (("--compress", "2"), "--compress counts for nothing without --departures"),
        (("--hours", "2"), "--hours counts for nothing without --load"),
        (("--departures", "--longest", "2"), "--longest counts for nothing without --load"),
        (("--patience", "60"), "--patience counts for nothing without --load or --departures"),
        (("--curve",), "--curve counts for nothing without -o json"),
    ],
)
def test_wrong_words_are_told_before_any_replay_begins(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(experiment, "run", lambda *_: pytest.fail("a replay has begun"))
    assert_says(refused(*words), said)


def test_times_that_are_missing_are_told_where_they_are_needed(refused: Callable[..., str]) -> None:
    timeless = "\n".join(",".join(line.split(",")[:5]) for line in PODS.splitlines())
    assert_says(refused("--departures", pods=timeless), "no times: all pods .* for --departures; .* --inflate")
    assert_says(refused("--load", "0.5", pods=timeless), "no pod that ever leaves.* for --load")


def assert_says(text: str, said: str) -> None:
    assert re.search(said, text), text


def test_columns_of_a_file_that_has_none_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").write_text("")
    text = refused("--nodes", str(tmp_path / "day.jsonl"), "--node-columns", "name=a,cards=b")
    assert_says(text, "--node-columns: 'name=a,cards=b' .* a CSV; day.jsonl is JSON")


def test_a_table_from_a_spreadsheet_with_its_mark_at_the_beginning_is_read(simulate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "nodes.csv").write_text(NODES, "utf-8-sig")
    assert simulate("-o", "json").exit_code == 0


def test_a_chart_that_cannot_be_written_costs_no_result(simulate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = tmp_path / "there.svg"
    place.symlink_to(tmp_path / "gone" / "there.svg")
    done = simulate("--chart", str(place))
    assert "allocated" in done.stdout
    assert isinstance(done.exception, Malformed)
    assert "there.svg: 'No such file" in str(done.exception)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_what_was_done_before_ctrl_c_or_a_kill_is_shown(simulate, monkeypatch: pytest.MonkeyPatch, sign: int) -> None:  # type: ignore[no-untyped-def]
    whole, before = experiment.run, signal.getsignal(signal.SIGTERM)

    def run(setting, policy, seed, progress):  # type: ignore[no-untyped-def]
        if seed == 3:
            signal.raise_signal(sign)
        return whole(setting, policy, seed, progress)

    monkeypatch.setattr(experiment, "run", run)
    done = simulate("--seeds", "1-5", "-o", "json")
    assert [run["seed"] for run in json.loads(done.stdout)["runs"]] == [1, 2]
    assert (done.exit_code != 0, "2 of 5 replays" in done.stderr) == (True, True)
    assert signal.getsignal(signal.SIGTERM) is before


# -- what is seen


def outcome(policy: str, seed: int, curve: tuple[Point, ...] = ()) -> Outcome:
    waits = Waits(65_828.8, 1.0, 135_682.2, 200_000.0, 1)
    failures = {"CardInsufficientMemory": 2258}
    return Outcome(policy, seed, 96.24 + seed / 10, 8480, 2291, 1234.5, 3.74, failures, waits, curve)


def test_the_widest_table_stands_in_80_columns() -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(shown([outcome(policy, seed) for policy in ("gpu-clustering", "fgd") for seed in range(10)]))
    lines = console.export_text().splitlines()
    rows = [line.split() for line in lines if line.startswith(("gpu-clustering ", "fgd  "))]
    assert rows[0] == ["gpu-clustering", "96.69", "0.30", "3.74", "8480", "2291", "1234.5", "65828.8", "135682.2"]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert any(line.startswith("gpu-clustering against fgd: +0.00 points allocated, +0.0 s waited") for line in lines)


def test_a_narrow_screen_has_two_tables_and_no_number_is_cut() -> None:
    console = Console(width=60, record=True, file=StringIO())
    console.print(shown([outcome(policy, seed) for policy in ("gpu-clustering", "fgd") for seed in range(10)], 60))
    lines = console.export_text().splitlines()
    rows = [line.split() for line in lines if line.startswith("gpu-clustering ") and "against" not in line]
    assert rows[:2] == [
        ["gpu-clustering", "96.69", "0.30", "3.74"],
        ["gpu-clustering", "8480", "2291", "1234.5", "65828.8", "135682.2"],
    ]
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_read_is_told_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen = Console(width=80, force_terminal=terminal, file=StringIO())
    monkeypatch.setattr(replays, "Console", lambda **_: screen)
    with replays.reading("nodes.csv and [x].csv"):
        pass
    assert ("reading nodes.csv and [x].csv" in screen.file.getvalue()) == terminal  # type: ignore[attr-defined]


def test_a_bar_stands_in_60_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=60, force_terminal=True, file=StringIO(), record=True)
    monkeypatch.setattr(replays, "Console", lambda **_: screen)
    with replays.Bar(24) as bar:
        bar.step("gpu-clustering", 12)(50, 100)
        bar._bar.refresh()
    text = screen.export_text()
    assert "1/24 gpu-clustering, seed 12" in text
    assert "…" not in text


def test_a_chart_is_whole_and_each_of_its_lines_stays_in_its_panel() -> None:
    curve = tuple(Point(float(x), x * 0.9, 12.0 - x / 15, 3600.0 * (1000 + x)) for x in range(0, 131, 10))
    policies = [f"policy-{number}" for number in range(9)]
    for axis, last in ((charts.LOAD, "120"), (charts.HOURS, "120")):
        text = charts.svg(dict.fromkeys(policies, curve), "openb", axis)
        root = ElementTree.fromstring(text)
        _, _, wide, high = map(float, root.attrib["viewBox"].split())
        lines = [node for node in root if node.tag.endswith("polyline")]
        assert len(lines) == 2 * len(policies)
        assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}) == len(policies)
        points = [tuple(map(float, pair.split(","))) for line in lines for pair in (line.get("points") or "").split()]
        assert all(0 < x < wide and 40 < y < high for x, y in points)
        words = [node.text for node in root if node.tag.endswith("text")]
        assert {last, axis.title, "policy-8: 117.0, 3.3"} <= set(words)


def test_ticks_are_round_and_reach_the_largest_number() -> None:
    for most in (0.4, 1.0, 5.2, 7.0, 17.3, 99.9, 100.0, 130.0, 13_000.0):
        found = charts.ticks(most)
        step = found[1]
        assert found[-2] < most <= found[-1]
        assert 4 <= len(found) - 1 <= 8
        assert f"{step:e}".split("e")[0].rstrip("0").rstrip(".") in ("1", "2", "2.5", "5")
