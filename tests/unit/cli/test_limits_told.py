"""What `hami limits check` holds limits against: the policy as it is now, or the variables of hand use."""

import io
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from hami.cli.commands.limits import _as_json, _draw_check, _number_of, _numbers, command
from hami.cli.limits import check, told
from hami.cli.limits.check import Here, Limits
from hami.cli.limits.program import Program, finish
from hami.cli.look import pictures
from hami.model.errors import Unavailable
from hami.wire.policy import CardLimit, CorePolicy, LibraryPolicy, encode

HERE = Here("A100", "GPU-1", "580", True, 40000)
NO_POLICY = Path("/none/policy")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"CUDA_DEVICE_MEMORY_LIMIT": "4g"}, Limits(4096, None, True)),
        ({"CUDA_DEVICE_MEMORY_LIMIT": "4g", "CUDA_DEVICE_MEMORY_LIMIT_0": "2048MiB"}, Limits(2048, None, True)),
        ({"CUDA_DEVICE_SM_LIMIT_0": "30", "GPU_CORE_UTILIZATION_POLICY": "FORCE"}, Limits(None, 30, False)),
        ({"CUDA_DEVICE_SM_LIMIT": "50", "CUDA_DEVICE_SM_LIMIT_0": "30"}, Limits(None, 30, True)),
        ({"CUDA_DEVICE_MEMORY_LIMIT": "1t"}, Limits(40000, None, True)),
    ],
)
def test_by_hand_the_first_cards_own_variable_wins(env: dict[str, str], expected: Limits) -> None:
    assert told.limits(HERE, env, None, None, NO_POLICY) == expected


def test_each_card_has_variables_and_a_line_of_the_policy_of_its_own(tmp_path: Path) -> None:
    second = Here("A100", "GPU-2", "580", True, 40000, index=1, cards=2)
    env = {"CUDA_DEVICE_MEMORY_LIMIT_0": "2g", "CUDA_DEVICE_MEMORY_LIMIT_1": "3g", "CUDA_DEVICE_SM_LIMIT": "50"}
    assert told.limits(second, env, None, None, NO_POLICY) == Limits(3072, 50, True)
    at = tmp_path / "policy"
    at.write_text(encode(LibraryPolicy("uid/main", (CardLimit("GPU-1", 1000, 30), CardLimit("GPU-2", 2000, 60)))))
    assert told.limits(second, env, None, None, at) == Limits(2000, 60, True)


@pytest.mark.parametrize(
    ("card", "held", "there", "measured"),
    [
        (None, True, 3, [0, 1, 2]),  # a slice's limits are those of all its cards
        (None, False, 3, [0]),  # a host may have eight, a minute each
        ("all", False, 3, [0, 1, 2]),
        (2, True, 3, [2]),
        (0, False, 1, [0]),
    ],
)
def test_which_cards_are_measured(card: int | str | None, held: bool, there: int, measured: list[int]) -> None:
    assert list(_numbers(card, Here("A100", "GPU-1", "580", held, 40000, cards=there))) == measured


UUIDS = ("GPU-1a2b", "GPU-1a3c", "MIG-9")


@pytest.mark.parametrize(
    ("word", "number"), [("GPU-1a3c", 1), ("gpu-1a2", 0), ("MIG-", 2), ("GPU-1a", "2 of"), ("GPU-7", "none of")]
)
def test_a_card_is_found_by_what_its_uuid_begins_with_if_no_other_s_does(word: str, number: int | str) -> None:
    there = [Here("A100", uuid, "580", True, 40000, index, len(UUIDS)) for index, uuid in enumerate(UUIDS)]
    if isinstance(number, int):
        assert _number_of(word, there) == number
        return
    with pytest.raises(click.UsageError, match=f"{number} the cards here begin so: GPU-1a2b, GPU-1a3c, MIG-9"):
        _number_of(word, there)


def shown(rows: list[check.Row], monkeypatch: pytest.MonkeyPatch) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(pictures, "console", lambda: console)
    _draw_check("A100, driver 580", rows)
    return console.export_text()


def test_what_was_not_judged_is_not_said_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    holds, fails = check.Row("a", 1, 1, True), check.Row("b", 1, 2, False)
    open_one = check.Row("c", 40, None, None, "%", "the percent holds only while others use the card")
    assert shown([holds, open_one], monkeypatch).endswith("All 1 hold. 1 not judged.\n")
    assert shown([holds, fails, open_one], monkeypatch).endswith("1 of 2 do not hold. 1 not judged.\n")
    assert shown([open_one], monkeypatch).endswith("Nothing could be judged. 1 not judged.\n")


def test_the_table_fits_eighty_columns_and_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [check.Row("card 0: time: graphs of 10 kernels of 100 us at 50", 50, 49.98, False, "%", check.UNSEEN)]
    text = shown(rows, monkeypatch)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "\u2026" not in text
    assert " ".join(text.split()).count("contexts and modules") == 1


def test_a_measure_without_nvml_says_so(tmp_path: Path) -> None:
    counting = tmp_path / "probe"
    counting.write_text(
        '#!/bin/sh\necho \'{"taken_mib": 90, "nvml_mib": -1.0, "refused_with": 2, "again": 1, "total_mib": 100}\'\n'
    )
    counting.chmod(0o755)
    row = check.memory(Program(counting, Path("/none"), tmp_path), "linear", 100, {})
    assert (row.measured, row.ok, row.why) == (90, True, check.UNSEEN)
    assert _as_json(row)["why"] == check.UNSEEN


@pytest.mark.parametrize("word", ["first", "-1", "1.5", "", "99999999999"])
def test_what_is_no_number_of_a_card_is_named(word: str) -> None:
    done = CliRunner().invoke(command, ["check", "--card", word])
    assert (done.exit_code, "neither a number of a card" in done.output) == (2, True)


def test_what_was_asked_for_wins_and_holds_whoever_else_is_there() -> None:
    assert told.limits(HERE, {"CUDA_DEVICE_SM_LIMIT": "50"}, 1000, 20, NO_POLICY) == Limits(1000, 20, False)


def test_no_limit_is_nothing_to_check() -> None:
    with pytest.raises(Unavailable, match="no limit to check"):
        told.limits(HERE, {}, None, None, NO_POLICY)


def test_after_a_resize_what_the_agent_has_put_beside_its_socket_holds(tmp_path: Path) -> None:
    def policy(mem_mib: int, container: str = "uid/main") -> str:
        card = CardLimit("GPU-1", mem_mib, 30)
        return encode(LibraryPolicy(container, (card,), CorePolicy.FORCE, broker=str(tmp_path / "broker/sock")))

    at, posted = tmp_path / "policy", tmp_path / "broker/policy"
    posted.parent.mkdir()
    at.write_text(policy(4000))
    assert told.limits(HERE, {}, None, None, at) == Limits(4000, 30, False)
    posted.write_text(policy(6000))
    assert told.limits(HERE, {}, None, None, at) == Limits(6000, 30, False)
    posted.write_text(policy(6000, "other/main"))
    assert told.limits(HERE, {}, None, None, at) == Limits(4000, 30, False)
    at.write_text("version 1\n")
    with pytest.raises(Unavailable, match="cannot be read"):
        told.limits(HERE, {}, None, None, at)


def test_a_slice_whose_library_is_not_in_force_does_not_hold() -> None:
    (step,) = check.past_steps()
    row = step.run()
    assert (row.ok, "ld.so.preload" in row.why) == (False, True)


def test_a_program_that_did_nothing_is_not_held(tmp_path: Path) -> None:
    """A speed of 0 is below every limit, and shows none."""
    nothing = tmp_path / "nothing"
    nothing.write_text("#!/bin/sh\necho '{\"tenths\": []}'\n")
    nothing.chmod(0o755)
    program = Program(nothing, Path("/none"), tmp_path)
    assert check.hostbound(program, 50, lambda _: 0.0, 0.5).ok is False


def test_who_ends_the_command_leaves_no_program_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(Path(sys.executable), Path("/none"), tmp_path)
    process = program.start(sys.executable, "-c", "import time; time.sleep(60)", env={})

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "communicate", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish(process)
    assert process.returncode == -9


def test_what_a_launch_costs_is_absent_where_it_was_not_measured(tmp_path: Path) -> None:
    """It is no number then, and JSON has none for that."""
    silent = tmp_path / "probe"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    row = check.launch(Program(silent, Path("/none"), tmp_path), "launch", {}, 10)
    assert (row.measured, row.ok, row.why) == (None, False, "exit 1")


def test_a_container_without_a_folder_to_write_to_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", none)
    with pytest.raises(Unavailable, match=r"set TMPDIR to one that can be written \(No usable temporary"):
        CliRunner().invoke(command, ["check"], standalone_mode=False, catch_exceptions=False)
