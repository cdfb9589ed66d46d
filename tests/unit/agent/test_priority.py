"""The agent goes before the node's containers where it may, and runs all the same where it may not."""

import os

from hami.agent.priority import take_precedence


def test_process_and_session_are_raised(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "setpriority", lambda *words: asked.append(words))
    autogroup = tmp_path / "autogroup"
    assert take_precedence(-10, autogroup)
    assert asked == [(os.PRIO_PROCESS, 0, -10)]
    assert autogroup.read_text() == "-10"


def test_without_the_right_nothing_is_changed(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refused)
    assert not take_precedence(-10, tmp_path / "autogroup")
    assert not (tmp_path / "autogroup").exists()


def test_a_kernel_without_groups_by_session_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    assert take_precedence(-10, tmp_path / "no" / "autogroup")
