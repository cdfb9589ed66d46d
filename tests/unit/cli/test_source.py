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


def test_a_snapshot_that_cannot_be_made_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text("yesterday's")
    words = ("record", "--snapshot", "--out", str(path), "--kubeconfig", str(tmp_path / "none"))
    assert CliRunner().invoke(hami, words).exit_code != 0
    assert path.read_text() == "yesterday's"
