"""Calls over a real socket to a server that misbehaves on order."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.config import load
from hami.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflicted,
    Forbidden,
    NotFound,
    ServerFault,
    TooMany,
    Unanswered,
    Unauthorized,
    Unreachable,
)
from hami.model.errors import Malformed
from hami.sim.apiserver import ApiServer
from hami.sim.apiserver.faults import Fault
from hami.wire.objects import Node, Pod

POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}


async def test_an_object_goes_through_its_life(kube: Kube) -> None:
    created = await kube.create(paths.pods("d"), POD, Pod)
    assert (created.metadata.namespace, created.status.phase) == ("d", "Pending")
    with pytest.raises(AlreadyExists):
        await kube.create(paths.pods("d"), POD)
    patch = {"metadata": {"annotations": {"a": "1"}}}
    patched = await kube.patch(paths.pods("d", "p"), patch, type=Pod)
    assert patched.metadata.annotations == {"a": "1"}
    operations = [{"op": "replace", "path": "/metadata/annotations/a", "value": "2"}]
    await kube.patch(paths.pods("d", "p"), operations, "json")
    got = await kube.get(paths.pods("d", "p"), Pod)
    assert got.metadata.annotations == {"a": "2"}
    stale = {**POD, "metadata": {"name": "p", "resourceVersion": created.metadata.resource_version}}
    with pytest.raises(Conflicted, match="ResourceVersion"):
        await kube.replace(paths.pods("d", "p"), stale)
    await kube.delete(paths.pods("d", "p"))
    with pytest.raises(NotFound):
        await kube.get(paths.pods("d", "p"), Pod)


async def test_without_a_type_the_answer_is_its_bytes(kube: Kube) -> None:
    assert b'"name":"p"' in await kube.create(paths.pods("d"), b'{"metadata":{"name":"p"}}')


async def test_a_list_is_all_pages(kube: Kube, server: ApiServer) -> None:
    for number in range(7):
        await kube.create(paths.nodes(), {"metadata": {"name": f"n{number}", "labels": {"odd": str(number % 2)}}})
    page = await kube.page(paths.nodes(), Node, {"limit": 3})
    assert (len(page.items), bool(page.next)) == (3, True)
    assert len(await kube.list(paths.nodes(), Node, {"limit": 3})) == 7
    assert [node.metadata.name for node in await kube.list(paths.nodes(), Node, {"labelSelector": "odd=1"})] == [
        "n1",
        "n3",
        "n5",
    ]


async def test_an_answer_of_another_form_is_malformed_not_a_crash(kube: Kube) -> None:
    await kube.create(paths.pods("d"), {"metadata": {"name": "p"}, "spec": {"containers": 7}})
    with pytest.raises(Malformed, match=r"containers"):
        await kube.get(paths.pods("d", "p"), Pod)
    with pytest.raises(Malformed, match=r"containers"):
        await kube.list(paths.pods("d"), Pod)


async def test_429_is_waited_out_as_the_server_asks(kube: Kube, server: ApiServer) -> None:
    server.faults.script(Fault("refuse", status=429, retry_after=0, times=3))
    await kube.create(paths.pods("d"), POD)
    assert len(server.requests) == 4


async def test_429_without_an_end_is_the_callers(kube: Kube, server: ApiServer) -> None:
    server.faults.script(Fault("refuse", status=429, retry_after=0, times=99))
    with pytest.raises(TooMany):
        await kube.create(paths.pods("d"), POD)
    server.faults.clear()
    server.faults.script(Fault("refuse", status=429, retry_after=3600, times=99))
    with pytest.raises(TooMany) as raised:
        await kube.create(paths.pods("d"), POD)
    assert raised.value.retry_after == 3600


async def test_a_server_error_is_not_repeated_for_it_may_have_been_done(kube: Kube, server: ApiServer) -> None:
    server.faults.script(Fault("refuse", status=500))
    with pytest.raises(ServerFault):
        await kube.create(paths.pods("d"), POD)
    assert len(server.requests) == 1


async def test_a_lost_answer_is_told_from_an_unreachable_server(kube: Kube, server: ApiServer, tmp_path: Path) -> None:
    server.faults.script(Fault("lose", method="POST"))
    with pytest.raises(Unanswered):
        await kube.create(paths.pods("d"), POD)
    assert (await kube.get(paths.pods("d", "p"), Pod)).metadata.name == "p"
    (tmp_path / "none").write_text((tmp_path / "config").read_text().replace(server.url, "http://127.0.0.1:9"))
    async with await Kube.connect(str(tmp_path / "none")) as nowhere:
        with pytest.raises(Unreachable, match=r"^API server at 127\.0\.0\.1:9: Connection refused$"):
            await nowhere.create(paths.pods("d"), POD)


async def test_silence_ends_after_the_timeout(kube: Kube, server: ApiServer) -> None:
    server.faults.script(Fault("delay", seconds=5.0))
    with pytest.raises(Unanswered):
        await kube.request("GET", paths.pods("d"), timeout=0.05)


async def test_a_rotated_token_is_taken_up_after_one_401(server: ApiServer, tmp_path: Path) -> None:
    server.tokens = {"one"}
    config = server.kubeconfig(tmp_path / "config")
    (tmp_path / "token").write_text("one")
    text = (tmp_path / "config").read_text().replace("user: {}", "user: {tokenFile: token}")
    (tmp_path / "config").write_text(text)
    async with await Kube.connect(config) as kube:
        await kube.create(paths.pods("d"), POD)
        server.tokens = {"two"}
        with pytest.raises(Unauthorized):
            await kube.get(paths.pods("d", "p"))
        (tmp_path / "token").write_text("two")
        await kube.get(paths.pods("d", "p"))


async def test_a_redirect_is_not_followed_for_it_would_carry_the_token_away(tmp_path: Path) -> None:
    visited: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    application = web.Application()
    application.router.add_get("/{path:.*}", redirect)
    async with TestServer(application) as server:
        config = ApiServer()
        config.url = str(server.make_url("")).rstrip("/")
        async with await Kube.connect(config.kubeconfig(tmp_path / "config", token="secret")) as kube:
            with pytest.raises(ApiError, match="302"):
                await kube.get(paths.pods("d"))
    assert visited == ["/api/v1/namespaces/d/pods"]


async def test_the_budget_spaces_calls(server: ApiServer, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with await Kube.connect(server.kubeconfig(tmp_path / "config"), qps=50.0, burst=1) as kube:
        began = loop.time()
        for _ in range(4):
            await kube.get(paths.pods())
        assert loop.time() - began >= 0.055


async def test_calls_are_observed_with_verb_status_and_time(server: ApiServer, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    config = server.kubeconfig(tmp_path / "config")
    server.faults.script(Fault("refuse", status=403, reason="Forbidden"), Fault("drop"))
    async with await Kube.connect(config, observer=lambda verb, status, _: seen.append((verb, status))) as kube:
        with pytest.raises(Forbidden):
            await kube.create(paths.pods("d"), POD)
        with pytest.raises(Unanswered):
            await kube.create(paths.pods("d"), POD)
        await kube.get(paths.pods())
    assert seen == [("POST", 403), ("POST", 0), ("GET", 200)]


async def test_tls_is_checked_against_the_clusters_authority_and_the_servers_name(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("kube.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    other.cert_pem.write_to_path(str(tmp_path / "other"))
    async with ApiServer(tls=context) as server:
        for name, trusted, works in (
            ("kube.example", "ca", True),
            ("kube.example", "other", False),
            ("x.y", "ca", False),
        ):
            config = server.kubeconfig(tmp_path / "config", authority=tmp_path / trusted)
            text = (tmp_path / "config").read_text().replace("server:", f"tls-server-name: {name}\n    server:")
            (tmp_path / "config").write_text(text)
            assert load(config).tls_server_name == name
            async with await Kube.connect(config) as kube:
                if works:
                    await kube.get(paths.pods())
                else:
                    with pytest.raises(Unreachable, match=r"(?i)certificate"):
                        await kube.get(paths.pods())
