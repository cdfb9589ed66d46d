"""Options made from a settings struct: names, types, defaults and help come from the fields."""

from typing import Any, Literal

import click
import msgspec
from click.testing import CliRunner

from hami.cli.options import from_settings


class Example(msgspec.Struct, frozen=True, kw_only=True):
    node_name: str
    """Which node."""
    retry: float = 2.0
    """Seconds between tries."""
    policy: Literal["binpack", "spread"] = "binpack"
    clients: tuple[str, ...] = ("one",)
    limit: int | None = None
    verbose: bool = False


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, Example | None]:
    seen: list[Example] = []

    @from_settings(Example, names={"node_name": "--node"})
    @click.command()
    def command(**fields: Any) -> None:
        seen.append(Example(**fields))

    done = CliRunner().invoke(command, arguments, env=env)
    return done.exit_code, done.output, seen[0] if seen else None


def test_fields_become_typed_options_with_their_defaults() -> None:
    _, _, settings = run("--node", "a", "--retry", "0.5", "--clients", "x", "--clients", "y", "--verbose")
    assert settings == Example(node_name="a", retry=0.5, clients=("x", "y"), verbose=True)


def test_a_default_stays_when_the_option_is_absent() -> None:
    _, _, settings = run("--node-name", "a")
    assert settings == Example(node_name="a")


def test_the_environment_sets_a_field() -> None:
    _, _, settings = run(env={"HAMI_NODE_NAME": "b", "HAMI_LIMIT": "7"})
    assert settings == Example(node_name="b", limit=7)


def test_help_is_the_text_below_the_field() -> None:
    status, output, _ = run("--help")
    assert status == 0
    assert "Seconds between tries." in output
    assert "[binpack|spread]" in output


def test_a_value_outside_the_choice_is_refused_by_name() -> None:
    status, output, settings = run("--node", "a", "--policy", "sideways")
    assert (status, settings) == (2, None)
    assert "--policy" in output
    assert "sideways" in output


def test_a_missing_required_field_is_named() -> None:
    status, output, _ = run()
    assert status == 2
    assert "--node-name" in output
