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
