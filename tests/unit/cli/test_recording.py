"""`hami record` ends at once where it cannot begin, and goes on through whatever comes later."""

from typing import Any

import pytest

from hami.cli.look import recording
from hami.kube.errors import Forbidden
from hami.model.ask import Policies
from hami.model.errors import HamiError, Unavailable
from hami.wire import record


class Api:
    """An API server that answers the first pages asked with these faults, None is an answer."""

    def __init__(self, *faults: HamiError | None) -> None:
        self._faults = list(faults)
        self.asked: list[tuple[str, Any]] = []

    async def page(self, path: str, _type: type, params: Any) -> None:
        self.asked.append((path, params))
        fault = self._faults.pop(0)
        if fault is not None:
            raise fault


@pytest.mark.parametrize(
    "faults",
    [
        (Unavailable("API server: connection refused"),),
        (Forbidden(403, "Forbidden", "nodes is forbidden"),),
        (None, Forbidden(403, "Forbidden", "pods is forbidden")),
    ],
)
async def test_who_may_not_read_or_reaches_nobody_is_told_at_once(faults: tuple[HamiError | None, ...]) -> None:
    lines: list[record.Line] = []
    with pytest.raises(HamiError, match=str(faults[-1])):
        await recording.stream(Api(*faults), (), Policies(), lines.append)  # type: ignore[arg-type]
    assert lines == []


async def test_once_it_has_begun_it_follows_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []

    async def follow(_kube: Any, path: str, *_: Any) -> None:
        followed.append(path)

    monkeypatch.setattr(recording, "follow", follow)
    lines: list[record.Line] = []
    api = Api(None, None)
    await recording.stream(api, (), Policies(), lines.append)  # type: ignore[arg-type]
    assert api.asked == [("/api/v1/nodes", {"limit": 1}), ("/api/v1/pods", {"limit": 1})]
    assert (followed, [type(line) for line in lines]) == (["/api/v1/nodes", "/api/v1/pods"], [record.Start])
