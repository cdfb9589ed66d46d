"""Where containers' ledgers are on the host, and that no tenant fills the host's disk through one."""

import ctypes
import mmap
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from msgspec.structs import replace

from hami.agent.broker import ledgers
from hami.agent.grants import recover

from .broker.conftest import stage  # noqa: F401 - a fixture
from .conftest import ask, one


def ledger(answer):
    (mount,) = [each for each in answer.mounts if each.container_path == "/usr/local/vgpu/ledger"]
    assert not mount.read_only
    return Path(mount.host_path)


@pytest.fixture
async def apart(make_node, tmp_path):
    """A node whose ledgers are in a folder of their own, as on a tmpfs, and that folder."""
    return await make_node(ledger_dir=str(tmp_path / "run/hami")), tmp_path / "run/hami"


async def test_ledgers_are_beside_the_policies_or_in_a_folder_of_their_own(node, apart):
    for each, place in ((node, None), apart):
        pod = each.pod("a", ask(slices=one(1)))
        await each.kubelet.admit(pod)
        path = ledger(await each.run(pod))
        (seat,) = each.parts.seats
        assert path == (place / seat.key if place else each.parts.folders.root / seat.key / "ledger")
        assert (path.stat().st_size, path.stat().st_mode & 0o777) == (0, 0o666)


async def test_after_the_machine_has_started_anew_a_ledger_is_there_before_its_container(apart):
    node, place = apart
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    path = ledger(await node.run(pod))
    path.unlink()
    place.rmdir()
    assert ledger(await node.run(pod)) == path
    assert path.stat().st_mode & 0o777 == 0o666


async def test_a_container_keeps_its_ledger_where_it_was_told_when_others_get_theirs_elsewhere(apart):
    node, _ = apart
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    path = ledger(await node.run(pod))
    path.unlink()
    node.settings = replace(node.settings, ledger_dir="")
    await node.restart_agent()
    assert ledger(await node.run(pod)) == path
    assert path.exists()


@pytest.mark.parametrize("later", ["", "elsewhere", None])
async def test_a_ledger_goes_with_its_grant_also_where_others_get_theirs_elsewhere_by_then(apart, tmp_path, later):
    node, place = apart
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    assert len(list(place.iterdir())) == 1
    if later is not None:
        node.settings = replace(node.settings, ledger_dir=later and str(tmp_path / later))
        await node.restart_agent()
    node.delete(pod)
    await recover.forget(node.parts)
    assert list(place.iterdir()) == []


async def test_what_a_tenant_writes_beyond_the_library_is_cut_and_told_of(stage, tmp_path, caplog):  # noqa: F811
    path = tmp_path / "ledger"
    path.write_bytes(b"ledger")
    stage.grant("a")
    stage.tenants["a"] = replace(stage.tenants["a"], ledger=str(path))
    stage.broker.round()
    assert path.read_bytes() == b"ledger"
    os.truncate(path, ledgers.MOST_BYTES + 4096)
    stage.broker.round()
    assert path.stat().st_size == ledgers.MOST_BYTES
    assert path.read_bytes().startswith(b"ledger\0")
    (line,) = [each for each in caplog.records if "ledger" in each.message]
    assert (line.pod, line.bytes) == ("default/pod-a", 4096)
    path.unlink()
    stage.broker.round()


def set_aside(path, beyond):
    """Blocks behind the file's end, which stays where it is."""
    offset, keep_size = ctypes.c_int64, 1
    with path.open("r+b") as file:
        done = ctypes.CDLL(None, use_errno=True).fallocate(file.fileno(), keep_size, offset(0), offset(beyond))
    if done != 0:
        pytest.skip("this file system sets nothing aside")


@pytest.mark.parametrize("size", [0, 1 << 20, ledgers.MOST_BYTES])
def test_room_that_a_tenant_sets_aside_behind_the_end_is_given_back_and_what_is_mapped_stays(tmp_path, size):
    path = tmp_path / "ledger"
    path.write_bytes(b"\1" * size)
    set_aside(path, 4 * ledgers.MOST_BYTES)
    assert path.stat().st_size == size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) if size else nullcontext() as mapped:
        assert ledgers.cut(str(path)) > 2 * ledgers.MOST_BYTES
        assert path.stat().st_blocks * 512 <= ledgers.MOST_BYTES + (1 << 20)
        if mapped:
            mapped[-1] = 2
    assert path.read_bytes()[:size] == b"\1" * (size - 1) + b"\2" * bool(size)
    assert ledgers.cut(str(path)) == 0
