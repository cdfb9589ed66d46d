"""Asking a live scheduler: what it refuses is told in its own words, and the exit status says whose fault it is."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from hami.cli.look import source
from hami.cli.main import exit_status, hami
from hami.kube.errors import BadRequest, Forbidden, NotFound, ServerFault, Unreachable
from hami.model.ask import PodRef
from hami.model.errors import HamiError
from hami.model.ids import PodUid
from hami.scheduler.api import desk
from hami.scheduler.api.answers import Explained


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


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (NotFound(404, "NotFound", 'services "hami-scheduler" not found'), "HAMi is not installed in this cluster"),
        (ServerFault(503, "ServiceUnavailable", 'no endpoints available for service "x"'), "none of its schedulers"),
    ],
)
def test_where_there_is_no_scheduler_it_is_said_and_trying_again_may_help(
    monkeypatch: pytest.MonkeyPatch, answer: NotFound | ServerFault, said: str
) -> None:
    async def refuse(*_: object) -> bytes:
        raise answer

    monkeypatch.setattr(source, "_ask", refuse)
    fault = CliRunner().invoke(hami, ("fit", "--gpu", "1"), standalone_mode=False).exception
    assert isinstance(fault, HamiError)
    assert (said in str(fault), exit_status(fault)) == (True, 3)


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


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (NotFound(404, "NotFound", 'namespaces "teem" not found'), 2),
        (Forbidden(403, "Forbidden", "no"), 0),
        (Unreachable("no route to host"), 0),
        (None, 0),
    ],
)
@pytest.mark.parametrize("file", [False, True])
def test_a_namespace_that_the_cluster_does_not_have_is_told_where_it_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: HamiError | None, status: int, file: bool
) -> None:
    """Its quota is no limit, so everything would fit that cannot even be made."""
    pod = PodRef("teem", "x", PodUid("x"))
    fits = Explained(pod=pod, asks=(), fits=True, offered=1, feasible=1, detail=True, kind="it", version=1)
    looked: list[str] = []

    async def answer(*_: object) -> bytes:
        return msgspec.json.encode(fits)

    async def look(_source: object, path: str) -> None:
        looked.append(path)
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(source, "_ask", answer)
    monkeypatch.setattr(source, "_look_up", look)
    (tmp_path / "pod.json").write_text(json.dumps({"kind": "Pod", "metadata": {"namespace": "teem"}, "spec": {}}))
    words = ("-f", str(tmp_path / "pod.json")) if file else ("--gpu", "1", "-n", "teem")
    done = CliRunner().invoke(hami, ("fit", *words, "-o", "json"), standalone_mode=False)
    assert looked == ["/api/v1/namespaces/teem"]
    if status:
        assert isinstance(done.exception, HamiError)
        assert exit_status(done.exception) == status
        assert str(done.exception).startswith("there is no namespace 'teem' in this cluster: make it, or ")
    else:
        assert (done.exception, json.loads(done.output)["fits"]) == (None, True)


def test_of_a_manifest_only_what_may_count_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[bytes] = []

    async def ask(_source: object, _method: str, _path: str, body: object) -> bytes:
        sent.append(msgspec.json.encode(body))
        raise BadRequest(400, "BadRequest", "as far as this test goes")

    monkeypatch.setattr(source, "_ask", ask)
    long = "x" * 300_000
    env = [{"name": "SCRIPT", "value": long}, {"name": "CUDA_DISABLE_CONTROL", "value": "true"}]
    env.append({"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}})
    limits = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": "8000"}
    container = {"name": "c", "command": [long], "env": env, "resources": {"limits": limits}}
    cards = ",".join(f"GPU-{number:036}" for number in range(100))
    notes = {"kubectl.kubernetes.io/last-applied-configuration": long, "hami.io/node-scheduler-policy": "spread"}
    notes["nvidia.com/nouse-gpuuuid"] = cards
    pod = {"kind": "Pod", "metadata": {"name": "p", "annotations": notes}, "spec": {"containers": [container]}}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    CliRunner().invoke(hami, ["fit", "-f", str(tmp_path / "pod.json"), "-n", "team"], standalone_mode=False)
    (body,) = sent
    assert len(body) < desk.LIMIT
    told = json.loads(body)["pod"]
    (main,) = told["spec"]["containers"]
    assert (told["metadata"]["namespace"], main["resources"]["limits"]) == ("team", limits)
    assert told["metadata"]["annotations"]["hami.io/node-scheduler-policy"] == "spread"
    assert told["metadata"]["annotations"]["nvidia.com/nouse-gpuuuid"] == cards  # a part of it would be another ask
    assert [(one["name"], one["value"][:4], one["valueFrom"]) for one in main["env"]] == [
        ("SCRIPT", "xxxx", None),
        ("CUDA_DISABLE_CONTROL", "true", None),
        ("SECRET", "", {}),
    ]
