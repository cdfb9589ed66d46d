"""The page of commands has each of them, and real answers keep to the schemas it names."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from tests.unit.cli.test_scene import pod, scene
from tests.unit.cli.test_simulate import NODES, PODS
from tests.unit.docs.test_explain import faults

from hami.cli.main import hami

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/reference/commands.md").read_text()
TOOL = runpy.run_path(str(ROOT / "tools/schemas.py"))
WIDTH = 80


def leaves(command: click.Command, path: tuple[str, ...] = ("hami",)) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something by itself, by its words."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))


COMMANDS = dict(leave for leave in leaves(hami) if leave[0] != "hami")


def test_the_page_has_exactly_the_commands_there_are() -> None:
    told = re.findall(r"^\| `(hami [a-z ]+)`", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_says_what_its_exit_status_means_and_what_each_option_does(words: str) -> None:
    command = COMMANDS[words]
    assert "Exit status:" in (command.help or "")
    bare = [option.opts[0] for option in command.params if isinstance(option, click.Option) and not option.help]
    assert bare == []


def test_no_example_is_wider_than_a_terminal() -> None:
    for words, command in COMMANDS.items():
        shown = CliRunner().invoke(hami, [*words.split()[1:], "--help"], env={"COLUMNS": str(WIDTH)}).output
        told = shown.partition("\nOptions:")[0]
        wide = [line for line in told.splitlines() if len(line) > WIDTH]
        assert wide == [], command.name


@pytest.mark.parametrize("name", TOOL["MORE"])
def test_schemas_are_those_of_the_types(name: str) -> None:
    assert (ROOT / "docs/reference" / name).read_text() == TOOL["text"](TOOL["MORE"][name]), "run tools/schemas.py"
    assert f"[`{name}`]({name})" in PAGE


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "simulated.schema.json"),
        (("--curve",), "simulated.schema.json"),
        (("--policy", "fgd", "--policy", "pack"), "simulations.schema.json"),
    ],
)
def test_what_simulate_prints_keeps_to_its_schema(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    (tmp_path / "n.csv").write_text(NODES)
    (tmp_path / "p.csv").write_text(PODS)
    files = ("--nodes", str(tmp_path / "n.csv"), "--pods", str(tmp_path / "p.csv"))
    answer = json.loads(CliRunner().invoke(hami, ("simulate", *files, *words, "-o", "json")).stdout)
    schema = json.loads((ROOT / "docs/reference" / name).read_text())
    assert faults(answer, schema, schema) == []
    assert faults({**answer, "more": 1}, schema, schema) == ["$.more: not in the schema"]


def test_what_the_demo_prints_keeps_to_its_schema() -> None:
    shown = scene(pod("a", "GPU-gpu-node-0,NVIDIA,10000,30:;"), pod("b", waits="0/1 nodes"))
    answer = json.loads(msgspec.json.encode(shown))
    schema = json.loads((ROOT / "docs/reference/scene.schema.json").read_text())
    assert faults(answer, schema, schema) == []
    assert faults({"pods": []}, schema, schema) == ["$.cards: missing"]
