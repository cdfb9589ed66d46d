"""Whatever file a person names by a slip, any command ends with 2 and a line that names it: no traceback, no end of the
machine's memory."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hami.cli.main import exit_status, hami
from hami.config import files
from hami.model.errors import HamiError

EVERY = (
    ("explain", "pod", "team/x", "--snapshot"),
    ("fit", "--gpu", "1", "--snapshot"),
    ("fit", "--gpu", "1", "--snapshot", "other.json", "--device-config-file"),
    ("fit", "-f"),
    ("frag", "--snapshot"),
    ("fit", "--gpu", "1", "--kubeconfig"),
    ("record", "--snapshot", "--kubeconfig"),
    ("record", "--snapshot", "--device-config-file"),
    ("simulate", "--pods", "other.json", "--nodes"),
    ("scheduler", "config", "objects", "--device-config-file"),
    ("scheduler", "config", "objects", "--ca-file"),
)


def said(*words: str) -> str:
    """What is told of wrong input."""
    done = CliRunner().invoke(hami, words, standalone_mode=False)
    if isinstance(done.exception, HamiError):
        assert exit_status(done.exception) == 2
        return str(done.exception)
    message: str | None = getattr(done.exception, "message", None)  # click's own
    assert message is not None, done.exception
    return message


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
@pytest.mark.parametrize(
    ("file", "telling"),
    [
        ("huge.jsonl", "huge.jsonl.*more than .* MiB.* a smaller file"),
        ("/proc/self/mem", "/proc/self/mem.*Input/output error"),
        ("gone.csv", "gone.csv.*(does not exist|No such file)"),
        ("/tmp", "/tmp.*(is a directory|Is a directory)"),
    ],
)
def test_a_file_that_cannot_be_meant_or_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], file: str, telling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text("{}")
    with Path("huge.jsonl").open("wb") as huge:
        huge.truncate(files.CLUSTERS + 1)  # a hole: the disk has nothing of it
    text = said(*words, file)
    assert re.search(telling, text), text


ODD_YAML = {
    "endless": "&a {kind: Pod, spec: *a}",
    "deep": "[" * 5000,
    "no such day": "{kind: Pod, spec: 2020-13-45}",
    "keys no JSON has": "{kind: Pod, ? [1, 2] : 3}",
    "bytes": "kind: Pod\nspec: !!binary aGVsbG8=\n",
    "a tag": "!!python/object:os.system {}",
    "two": "kind: Pod\n---\nkind: Pod\n",
}


@pytest.mark.parametrize("name", ODD_YAML)
def test_a_manifest_that_says_what_no_pod_can_is_wrong_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "pod.yaml").write_text(ODD_YAML[name])
    (tmp_path / "cluster.json").write_text('{"kind":"hami.io/snapshot","version":1,"at":0,"nodes":[],"pods":[]}')
    text = said("fit", "-f", str(tmp_path / "pod.yaml"), "--snapshot", str(tmp_path / "cluster.json"))
    assert "pod.yaml" in text or "pod.spec" in text, text
