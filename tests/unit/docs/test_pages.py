"""What pages point to is there: files, headings, tests, and every command that they name, with its options."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hami.cli.main import hami

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PYTHON = re.compile(r"\bpython3? (?:-m (?P<module>[a-z_.]+)|(?P<file>[a-z_/]+\.py))")
MAKE = re.compile(r"(?:^|&& |`)make ([a-z-]+)", re.MULTILINE)
END = re.compile(r"[|;>#`]|&&|  +|$")
"""Where a command ends in a line of a shell."""


def code(page: Path) -> str:
    """What stands as code: fenced, set in, or in the line."""
    text = page.read_text()
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```[a-z]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    set_in = re.findall(r"^ {4,}\S.*$", rest, re.MULTILINE)
    return "\n".join([*fenced, *set_in, *re.findall(r"`([^`\n]+)`", rest)])


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not link.startswith("http") and (not target.exists() or (anchor and anchor not in anchors(target))):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("name", NAMES)
def test_every_target_module_and_file_that_is_named_is_there(name: str) -> None:
    shell, targets = code(ROOT / name), re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in MAKE.findall(shell) if target not in targets] == []
    for found in PYTHON.finditer(shell):
        module, file = found["module"], found["file"]
        assert not module or importlib.util.find_spec(module) is not None, found[0]
        assert not file or (ROOT / file).is_file(), found[0]


def calls(shell: str) -> Iterator[list[str]]:
    """Words of each call of `hami`; a line that ends in a backslash goes on."""
    for line in shell.replace("\\\n", " ").splitlines():
        for start in re.finditer(r"(?:^|[$(|&] ?|--? )hami (?=[a-z-])", line.strip()):
            rest = re.sub(r" +", " ", line.strip()[start.end() :])
            yield rest[: END.search(rest).start()].split()  # type: ignore[union-attr]


def wrong(words: list[str]) -> str:
    """What of a call is not there; empty for one that can be typed."""
    command: click.Command = hami
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return "" if command.invoke_without_command else f"no {words[0]}"
        command, words = found, words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    given = [re.split(r"[=\]]", word)[0] for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(option for option in given if option not in known)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("docs/adr")])
def test_every_command_that_is_named_has_the_options_it_is_given(name: str) -> None:
    found = {" ".join(words): said for words in calls(code(ROOT / name)) if (said := wrong(words))}
    assert found == {}


def test_a_command_that_is_not_there_is_noticed() -> None:
    shell = "hami fit --gpu 1 --nope && x\n$ hami explain node x\nkubectl | hami frob\nhami frag --gpu 4"
    assert [wrong(words) for words in calls(shell)] == ["--nope", "no node", "no frob", ""]
