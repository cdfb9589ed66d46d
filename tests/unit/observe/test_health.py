"""Readiness with reasons."""

import pytest

from hami.observe.health import Health


def test_a_program_is_ready_when_every_condition_holds() -> None:
    health = Health(["pods", "leader"])
    assert not health.ready
    assert health.reasons == ("pods: not yet", "leader: not yet")
    health.met("pods")
    health.met("leader")
    assert health.ready
    assert health.reasons == ()


def test_a_lost_condition_says_why_and_since_when() -> None:
    now = [100.0]
    health = Health(["pods"], clock=lambda: now[0])
    health.met("pods")
    now[0] = 200.0
    health.unmet("pods", "API server away")
    now[0] = 210.0
    health.unmet("pods", "still away")
    assert health.text() == "[-]pods still away (10 s)\nnot ready\n"
    health.met("pods")
    assert health.text() == "[+]pods ok\nready\n"


def test_an_unknown_condition_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Health(["pods"]).met("nodes")
