"""`hami limits top`: what an agent's metrics say of each slice, and what is said where there is no agent."""

import http.server
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from rich.console import Console

from hami.cli.commands import limits
from hami.cli.commands.limits import command
from hami.cli.limits.top import Slice, slices
from hami.cli.look import pictures
from hami.model.errors import Malformed, Unavailable

LABELS = 'namespace="team",pod="a",container="main",vdevice_index="0",device_uuid="GPU-1",zone="vGPU"'
TEXT = f"""# HELP hami_vgpu_memory_used_bytes Device memory a container uses.
# TYPE hami_vgpu_memory_used_bytes gauge
hami_vgpu_memory_used_bytes{{{LABELS}}} {3000 << 20}
hami_vgpu_memory_limit_bytes{{{LABELS}}} {4000 << 20}
hami_container_device_utilization_ratio{{{LABELS}}} 29.5
hami_vgpu_time_charged{{{LABELS}}} 1
hami_vgpu_core_limit_ratio{{{LABELS}}} 30
hami_vgpu_throttled_seconds_total{{{LABELS}}} 12.25
hami_vgpu_memory_refused_total{{{LABELS}}} 2
hami_vgpu_memory_used_bytes{{{LABELS.replace('"a"', '"b"')}}} {1 << 30}
hami_broker_clients 2
"""
FIRST = Slice("team", "a", "main", "GPU-1", 3000, 4000, 29.5, "charge", 30, 12.25, 2)


def test_each_slice_is_told_with_its_limits_and_a_whole_card_with_none() -> None:
    assert list(slices(TEXT)) == [FIRST, Slice("team", "b", "main", "GPU-1", 1024, None, None, "", 100, 0, 0)]


def test_it_says_whose_word_the_time_is() -> None:
    by_nvml = TEXT.replace("hami_vgpu_time_charged{" + LABELS + "} 1", "hami_vgpu_time_charged{" + LABELS + "} 0")
    assert [each.time_by for each in slices(TEXT)] == ["charge", ""]
    assert [each.time_by for each in slices(by_nvml)] == ["NVML", ""]


def test_a_limit_without_use_is_no_slice() -> None:
    assert list(slices(TEXT.replace("memory_used_bytes", "other_bytes"))) == []


@pytest.fixture
def agent() -> Iterator[str]:
    """Its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_json_has_every_number_and_the_table_every_slice(agent: str) -> None:
    done = CliRunner().invoke(command, ["top", "--agent", agent, "-o", "json"])
    told = json.loads(done.output)["slices"]
    assert [Slice(**each) for each in told] == list(slices(TEXT))
    done = CliRunner().invoke(command, ["top", "--agent", agent])
    assert (done.exit_code, "team/a" in done.output, "team/b" in done.output) == (0, True, True)
    assert [line.split()[5:8] for line in done.output.splitlines() if "team/" in line] == [
        ["30", "30", "charge"],
        ["?", "100", "0.0"],
    ]


def test_where_no_agent_answers_it_says_how_to_reach_one() -> None:
    done = CliRunner().invoke(command, ["top", "--agent", "http://127.0.0.1:1"])
    assert isinstance(done.exception, Unavailable)
    assert "port-forward" in str(done.exception)
    done = CliRunner().invoke(command, ["top", "--agent", "file:///etc/passwd"])
    assert isinstance(done.exception, Malformed)


@pytest.mark.parametrize(
    "answer", [b"\x00\xff no http\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>Another program</html>"]
)
def test_what_is_no_agent_is_told_and_is_no_node_without_slices(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def once() -> None:
            with door.accept()[0] as caller:
                caller.recv(4096)
                caller.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        done = CliRunner().invoke(command, ["top", "--agent", f"http://127.0.0.1:{door.getsockname()[1]}"])
        thread.join()
    assert isinstance(done.exception, Unavailable)
    assert "agent" in str(done.exception)


def test_the_address_of_the_metrics_themselves_will_do_and_no_proxy_is_asked(
    agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent is on this node, or behind a forwarded port: a proxy knows of neither."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    for url in (agent, f"{agent}/", f"{agent}/metrics"):
        assert len(json.loads(CliRunner().invoke(command, ["top", "--agent", url, "-o", "json"]).stdout)["slices"]) == 2


def test_who_watches_goes_on_when_the_agent_restarts_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((TEXT, Unavailable("no agent answers"), Unavailable("no agent answers"), TEXT, KeyboardInterrupt()))

    def asked(_: str) -> str:
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("hami.cli.limits.top.asked", asked)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    done = CliRunner().invoke(command, ["top", "--watch", "1", "-o", "json"])
    assert [len(json.loads(line)["slices"]) for line in done.stdout.splitlines() if line] == [2, 2]
    assert done.stderr.count("no agent answers") == 1
    assert next(answers, None) is None


def test_addresses_and_spans_that_cannot_be_used_are_named() -> None:
    assert isinstance(CliRunner().invoke(command, ["top", "--agent", "http://a b"]).exception, Unavailable)
    for words in (["top", "--watch", "nan"], ["top", "--watch", "inf"], ["check", "--seconds", "nan"]):
        assert CliRunner().invoke(command, words).exit_code == 2, words


@pytest.mark.parametrize("word", ["banana", "NaN", "+Inf"])
def test_a_number_that_is_none_is_named(word: str) -> None:
    """Nor is it printed: JSON has no such numbers."""
    with pytest.raises(Malformed, match=re.escape(word)):
        list(slices(TEXT.replace("29.5", word)))


def test_the_table_fits_eighty_columns_and_names_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pod, card = "[red]a-pod-of-a-long-name-7c9f8b6d5-x2x9z", "GPU-5f1c2c3d-7d0a"
    one = Slice("team", pod, "main", card, 3000, 40000, 29.5, "charge", 30, 12.25, 2)
    console = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(pictures, "console", lambda: console)
    limits._draw_top([one], clear=False)
    shown = console.export_text()
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    assert all(word in shown for word in ("[red]", "GPU-5f1c2c3d", "3000", "40000", "30", "charge", "12.2"))
    assert "\u2026" not in shown
