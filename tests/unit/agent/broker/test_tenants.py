"""The policy file of a grant where reading or showing it does not work: tried again, told once, and never guessed."""

import shutil
from pathlib import Path

import pytest

from hami.agent.broker import tenants
from hami.agent.broker.tenants import PolicyFile
from hami.wire.policy import CardLimit, LibraryPolicy, encode

CARD = "GPU-00000000-0000-4000-8000-000000000000"


def write(folder: Path, mem: int) -> str:
    text = encode(LibraryPolicy(container="pod/main", cards=(CardLimit(CARD, mem, 30),)))
    fresh = folder / "policy.new"
    fresh.write_text(text)
    fresh.replace(folder / "policy")
    return text


def mem_of(file: PolicyFile) -> int | None:
    return None if file.policy is None else file.policy.cards[0].mem_mib


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 4000)
    return tmp_path


def test_what_could_not_be_read_is_read_when_it_can_be(folder, monkeypatch, caplog):
    """Descriptors were scarce at that moment: the file is the same one a second later."""
    real, file = Path.open, PolicyFile(folder)

    def scarce(path, *words):
        if path.name == "policy":
            raise OSError(24, "Too many open files")
        return real(path, *words)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", scarce)
        assert [file.refresh() for _ in range(5)] == [False] * 5
    assert [one.message for one in caplog.records] == ["a policy cannot be used"]
    assert file.refresh()
    assert mem_of(file) == 4000


def test_a_file_that_is_not_there_is_told_once_and_what_it_said_stands(folder, caplog):
    file = PolicyFile(folder)
    file.refresh()
    (folder / "policy").unlink()
    assert [file.refresh() for _ in range(5)] == [False] * 5
    assert [one.message for one in caplog.records] == ["a policy cannot be used"]
    assert mem_of(file) == 4000
    write(folder, 5000)
    assert file.refresh()
    (folder / "policy").unlink()
    file.refresh()
    assert len(caplog.records) == 2  # it is another time


def test_what_a_full_disk_could_not_show_is_shown_when_there_is_room(folder, monkeypatch, caplog):
    file = PolicyFile(folder)
    file.refresh()
    text = write(folder, 6000)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tenants, "replace_file", full)
        assert file.refresh()  # the programs that have registered hear of it all the same
        assert [file.refresh() for _ in range(5)] == [False] * 5
    assert [one.message for one in caplog.records] == ["a container cannot be shown its policy"]
    assert "mem_mib 4000" in (folder / "broker/policy").read_text()
    assert not file.refresh()
    assert (folder / "broker/policy").read_text() == text


async def test_a_folder_that_was_removed_is_shown_the_policy_again(stage):
    folder = stage.grant("a", mem=4000)
    shutil.rmtree(folder / "broker")
    stage.broker.round()
    assert "mem_mib 4000" in (folder / "broker/policy").read_text()
