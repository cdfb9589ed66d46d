"""Asking a live scheduler: what it refuses is told in its own words, and the exit status says whose fault it is."""

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
