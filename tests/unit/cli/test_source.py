"""Asking a live scheduler: what it refuses is told in its own words, and the exit status says whose fault it is."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from hami.cli.look import source
from hami.cli.main import exit_status, hami
from hami.kube.errors import BadRequest, NotFound
from hami.model.errors import HamiError


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (NotFound(404, "NotFound", "pod team/x asks for no card"), ("explain", "pod", "team/x")),
        (BadRequest(400, "BadRequest", "limits[x]: 'x' is not usable: one of ..."), ("fit", "--limit", "x=1")),
    ],
)
def test_what_the_scheduler_refuses_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, refusal: NotFound | BadRequest, words: tuple[str, ...]
) -> None:
    async def refuse(*_: object) -> bytes:
        raise refusal

    monkeypatch.setattr(source, "_ask", refuse)
    fault = CliRunner().invoke(hami, words, standalone_mode=False).exception
    assert isinstance(fault, HamiError)
    assert (str(fault), exit_status(fault)) == (refusal.message, 2)


NOBODY = """\
current-context: a
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: x}}]
contexts: [{name: a, context: {cluster: a, user: u}}]
"""


@pytest.mark.parametrize("words", [("--snapshot",), ("--for", "5")])
@pytest.mark.parametrize(("kubeconfig", "status"), [("users: 5", 2), (NOBODY, 3)])
def test_what_cannot_be_recorded_leaves_the_file_that_was_there(
    tmp_path: Path, words: tuple[str, ...], kubeconfig: str, status: int
) -> None:
    path = tmp_path / "cluster.json"
    path.write_text("yesterday's")
    (tmp_path / "kubeconfig").write_text(kubeconfig)
    command = ("record", *words, "--out", str(path), "--kubeconfig", str(tmp_path / "kubeconfig"))
    fault = CliRunner().invoke(hami, command, standalone_mode=False).exception
    assert isinstance(fault, HamiError)
    assert exit_status(fault) == status
    assert path.read_text() == "yesterday's"
