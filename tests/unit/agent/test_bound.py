"""The node's pods as the agent knows them, the library on the host, and the pages."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from hami.agent import library
from hami.agent.bound import BoundPods
from hami.agent.endpoint import pages, serve
from hami.agent.settings import Settings
from hami.model.errors import Malformed, Unavailable
from hami.observe.health import Health
from hami.wire import annotations as keys

from .conftest import Node, ask, one, plain


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def names(pods: BoundPods) -> list[str]:
    return [pod.ref.name for pod in pods.in_order()]


def test_pods_stand_in_bind_order_then_by_creation_then_as_they_were_heard_of(node):
    def at(name, bound, created):
        made = node.pod(name, ask(), seen=False, annotations={keys.BIND_TIME: bound})
        return replace(made, metadata=replace(made.metadata, creation_timestamp=created))

    for made in (
        at("third", "20", "2026-01-02T00:00:00Z"),
        at("first", "10", "2026-01-03T00:00:00Z"),
        at("second", "20", "2026-01-01T00:00:00Z"),
        at("fourth", "20", "2026-01-02T00:00:00Z"),
    ):
        node.pods.put(made)
    assert names(node.pods) == ["first", "second", "third", "fourth"]


def test_a_pod_that_is_being_deleted_comes_last(node):
    leaving = node.pod("leaving", ask())
    node.pod("later", ask())
    node.pods.put(replace(leaving, metadata=replace(leaving.metadata, deletion_timestamp="2026-01-01T00:00:00Z")))
    assert names(node.pods) == ["later", "leaving"]


def test_a_state_older_than_what_is_known_is_ignored(node):
    old = node.pod("a", ask())
    new = node.update(old, **{keys.BIND_PHASE: "success"})
    node.pods.put(old)
    assert node.pods.get(new.metadata.uid).phase == "success"


def test_a_fresh_list_takes_away_what_it_lacks_but_not_what_came_after_it(node):
    node.pod("gone", ask())
    version = str(node.api.version)
    node.pod("younger", ask())
    node.pods.replace([], version)
    assert names(node.pods) == ["younger"]


def test_pods_of_other_nodes_are_none_of_ours(node):
    made = node.pod("elsewhere", ask(), seen=False)
    node.pods.put(replace(made, spec=replace(made.spec, node_name="node-2")))
    assert len(node.pods) == 0


def test_the_lasting_list_is_read_since_the_other_one_empties(node):
    node.pod("a", ask(slices=one(3)), annotations={"hami.io/vgpu-devices-to-allocate": ";"})
    [pod] = node.pods.in_order()
    assert pod.shares[0].slices == tuple(one(3))


def test_init_containers_come_first_and_plain_ones_keep_their_place(node):
    node.pod("a", plain("x"), ask("y"), inits=[ask("w"), ask("v", sidecar=True)])
    [pod] = node.pods.in_order()
    assert [(share.name, share.kind.value, len(share.slices)) for share in pod.shares] == [
        ("w", "init", 1),
        ("v", "sidecar", 1),
        ("x", "app", 0),
        ("y", "app", 1),
    ]


def test_a_record_that_cannot_be_read_is_a_problem_and_never_an_empty_one(node):
    node.pod("a", ask(), annotations={"hami.io/vgpu-devices-allocated": "GPU-1,NVIDIA,x,1:;"})
    [pod] = node.pods.in_order()
    assert "hami.io/vgpu-devices-allocated" in pod.problem
    assert not pod.asks


def test_a_new_library_is_a_new_file_and_running_programs_keep_theirs(tmp_path):
    origin = tmp_path / "libvgpu.so"
    origin.write_bytes(b"old")
    settings = Settings(node_name="n", hook_path=str(tmp_path / "hook"), library_file=str(origin))
    target = Path(library.install(settings))
    with target.open("rb") as mapped:
        origin.write_bytes(b"new")
        assert library.install(settings) == str(target)
        assert mapped.read() == b"old"
    assert target.read_bytes() == b"new"
    inode = target.stat().st_ino
    library.install(settings)
    assert target.stat().st_ino == inode
    assert (tmp_path / "hook/vgpu/ld.so.preload").read_text() == "/usr/local/vgpu/libvgpu.so\n"


def test_a_hook_path_that_cannot_be_written_is_named(tmp_path):
    origin = tmp_path / "libvgpu.so"
    origin.write_bytes(b"x")
    (tmp_path / "file").write_text("")
    settings = Settings(node_name="n", hook_path=str(tmp_path / "file"), library_file=str(origin))
    with pytest.raises(Malformed, match="--hook-path"):
        library.install(settings)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_does_not_take_a_new_library_ends_no_agent(tmp_path, monkeypatch, caplog, number):
    """Containers that run have sessions with it; the next grant is refused until the library is there."""
    (tmp_path / "origin.so").touch()
    settings = Settings(node_name="n", hook_path=str(tmp_path), library_file=str(tmp_path / "origin.so"))

    def full(path, *_):
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(library, "write_durably", full)
    path = library.install_if_room(settings)
    assert [one.message for one in caplog.records] == ["the library is not installed yet"]
    monkeypatch.undo()
    assert library.install(settings) == path


def test_what_is_no_folder_for_the_library_ends_the_agent_at_its_start(tmp_path):
    (tmp_path / "origin.so").touch()
    (tmp_path / "file").touch()
    settings = Settings(node_name="n", hook_path=str(tmp_path / "file"), library_file=str(tmp_path / "origin.so"))
    with pytest.raises(Malformed, match="--hook-path"):
        library.install_if_room(settings)
    with pytest.raises(Malformed, match="--library-file"):
        library.install_if_room(replace(settings, hook_path=str(tmp_path), library_file=str(tmp_path / "none.so")))


async def test_the_pages_say_what_is_missing():
    import aiohttp

    health = Health(["kubelet"])
    runner, port = await serve(pages(health, lambda: b"x 1\n"), "127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:

        async def get(path):
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        health.unmet("kubelet", "kubelet.sock is not there")
        status, text = await get("/readyz")
        assert status == 503
        assert "kubelet.sock is not there" in text
        health.met("kubelet")
        assert (await get("/readyz"))[0] == 200
        assert await get("/healthz") == (200, "ok\n")
        assert await get("/metrics") == (200, "x 1\n")
    await runner.cleanup()


def test_a_folder_that_no_program_can_be_loaded_from_is_refused(tmp_path, monkeypatch):
    """A container would start all the same, without limits and with a line on stderr."""
    (tmp_path / "origin.so").touch()
    settings = Settings(node_name="n", hook_path=str(tmp_path), library_file=str(tmp_path / "origin.so"))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID))
    with pytest.raises(Malformed, match=r"--hook-path: .*not mounted noexec"):
        library.install(settings)
    monkeypatch.undo()
    assert Path(library.install(settings)).exists()


def test_a_library_that_cannot_be_read_is_named_and_not_the_folder_it_was_for(tmp_path):
    settings = Settings(node_name="n", hook_path=str(tmp_path), library_file=str(tmp_path / "none.so"))
    with pytest.raises(Malformed, match=r"^--library-file: .*none.so.*No such file"):
        library.install(settings)


async def test_an_address_that_another_program_has_is_told_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"cannot listen at 127.0.0.1:{port}: Address already in use.*another"):
            await serve(pages(Health(()), lambda: b""), "127.0.0.1", port)


async def test_a_name_that_has_no_address_is_told_as_that(monkeypatch):
    async def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match=r"cannot listen at nobody:80: Name or service not known\. "):
        await serve(pages(Health(()), lambda: b""), "nobody", 80)
