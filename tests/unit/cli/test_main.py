"""The program `hami`: version, help, exit statuses."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hami
from hami.cli.main import COMMANDS, exit_status, way_out
from hami.kube.errors import Forbidden, Unauthorized, Unreachable
from hami.model.errors import Bug, HamiError, Malformed, Unavailable
from hami.scheduler.settings import Settings


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hami", *arguments], capture_output=True, text=True, check=False)


def test_every_program_names_the_version_of_the_package_metadata() -> None:
    assert json.loads(call("version", "-o", "json").stdout) == {"version": hami.__version__}
    assert call("version").stdout == f"hami {hami.__version__}\n"
    assert importlib.metadata.version("hami") == hami.__version__


def test_help_lists_every_command_with_a_sentence() -> None:
    shown = call("--help").stdout
    for name in COMMANDS:
        line = next(line for line in shown.splitlines() if line.strip().startswith(f"{name} "))
        assert len(line.split()) > 3, f"{name} has no help"


def test_an_unknown_command_is_wrong_use() -> None:
    done = call("frobnicate")
    assert done.returncode == 2
    assert "There is no command 'frobnicate'." in done.stderr
    assert "did you mean 'explain'?" in call("explian").stderr


def test_the_time_kube_scheduler_waits_is_printed_as_told() -> None:
    (extender,) = yaml.safe_load(call("scheduler", "config", "kube-scheduler").stdout)["extenders"]
    assert extender["httpTimeout"] == f"{Settings().extender_timeout:g}s", "what the scheduler takes it to be"
    told = call("scheduler", "config", "kube-scheduler", "--extender-timeout", "90").stdout
    assert yaml.safe_load(told)["extenders"][0]["httpTimeout"] == "90s"


def test_kube_scheduler_is_told_to_ask_about_pods_without_cards_only_on_request() -> None:
    told = yaml.safe_load(call("scheduler", "config", "kube-scheduler", "--cpu-pods").stdout)["extenders"]
    assert [one["prioritizeVerb"] for one in told] == ["prioritize", "shelter"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Malformed("$.a", 1, "a text"), 2), (Unavailable("the API server does not answer"), 3), (Bug("no"), 1)],
)
def test_exit_statuses_tell_bad_input_from_trouble(fault: Exception, status: int) -> None:
    assert exit_status(fault) == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Unauthorized(401, "Unauthorized", "Unauthorized"), "log in again, or try --context"),
        (Unreachable("API server at 127.0.0.1:1: Connection refused"), "Is the cluster up"),
        (Forbidden(403, "Forbidden", "pods is forbidden"), ""),
    ],
)
def test_who_cannot_get_in_is_told_what_to_do(fault: HamiError, said: str) -> None:
    assert said in way_out(fault)
    assert bool(way_out(fault)) == bool(said)


@pytest.mark.parametrize("content", [b"", b"\x92\x13(\xc1", b"-----BEGIN CERTIFICATE-----\nnone\n"])
def test_a_file_without_a_certificate_is_no_authority_of_the_webhook(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.crt").write_bytes(content)
    done = call("scheduler", "config", "--ca-file", str(tmp_path / "ca.crt"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "a file with a certificate in PEM form" in done.stderr


def test_a_namespace_that_kubernetes_would_refuse_is_refused_here() -> None:
    done = call("scheduler", "config", "--namespace", "Bad NS")
    assert (done.returncode, done.stdout) == (2, "")


def test_who_closes_our_output_gets_the_exit_status_alone() -> None:
    command = [sys.executable, "-m", "hami", "simulate", "--list-policies"]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_answer_that_cannot_be_written_is_a_line_and_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hami", "version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "hami: the answer cannot be written: No space left on device\n")
