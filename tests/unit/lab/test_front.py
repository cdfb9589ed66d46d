"""The forwarder before the scheduler: what is open when it stops, and what it finds when the scheduler is gone."""

import socket

import pytest

from hami.lab.front import Forwarder


def test_it_stops_without_a_word_while_somebody_is_connected(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as scheduler:
        forwarder = Forwarder("127.0.0.1", scheduler.getsockname()[1])
        with socket.create_connection(("127.0.0.1", forwarder.port)) as person:
            person.sendall(b"hello")
            there, _ = scheduler.accept()
            with there:
                assert there.recv(5) == b"hello"
                forwarder.stop()
    assert caplog.messages == []


def test_who_asks_a_scheduler_that_is_gone_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    forwarder = Forwarder("127.0.0.1", port)
    try:
        with socket.create_connection(("127.0.0.1", forwarder.port), timeout=5) as person:
            assert person.recv(1) == b""
    finally:
        forwarder.stop()
    assert caplog.messages == []
