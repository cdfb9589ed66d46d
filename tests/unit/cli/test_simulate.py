import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hami.cli.commands.simulate import command, range_of

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
    assert "GPU allocated %" in text
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


def test_what_hami_record_wrote_is_nodes_and_pods_in_one_file(tmp_path: Path) -> None:
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
