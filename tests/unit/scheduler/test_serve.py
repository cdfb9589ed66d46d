"""The HTTPS edge as strangers meet it: sizes, times, certificates, broken requests; and the answers of all verbs."""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hami.scheduler.edge.connections import BoundedServer, limits_of
from hami.scheduler.edge.listener import FEWEST, Listener, bound
from hami.scheduler.edge.room import SMALL
from hami.scheduler.edge.routes import MIB, Route, extender_routes, open_routes
from hami.scheduler.edge.serve import Edge, health_pages
from hami.scheduler.edge.tls import server_context
from hami.scheduler.verbs.webhook import WebhookSettings, review

EXTENDER = ("/filter", "/prioritize", "/shelter", "/bind", "/preempt")


def site_routes(stage: Any, max_body: int = MIB) -> dict[tuple[str, str], Route]:
    vendors = stage.engine.vendors
    return {
        **extender_routes(stage.engine, stage.binder, max_body),
        **open_routes(lambda body: review(body, WebhookSettings(), vendors), MIB),
    }


class Site:
    """A listener on loopback in front of a stage's engine, and clients with and without a certificate."""

    def __init__(self, stage: Any, folder: Any) -> None:
        self.stage = stage
        self.authority, self.other = trustme.CA(), trustme.CA()
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
        self.authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        self.context = server_context(str(folder / "tls.pem"), str(folder / "tls.pem"), str(folder / "ca.crt"))
        self.port = 0
        self.ended: list[str] = []

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator["Site"]:
        engine = self.stage.engine
        routes = site_routes(self.stage, options.pop("max_body", MIB))
        connections = options.pop("max_connections", 100)
        clients = options.pop("clients", frozenset({"system:kube-scheduler"}))
        self.edge = edge = Edge(
            routes,
            health_pages(self.stage.gate),
            engine.meters,
            clients=clients,
            body_timeout=options.pop("body_timeout", 60.0),
        )
        deadline = options.pop("deadline", 60.0)
        assert not options
        server = BoundedServer(edge, limits_of(routes), connections, lambda: None)
        self.listener = listener = Listener(server, self.context, connections, self.ended.append, deadline=deadline)
        await listener.open("127.0.0.1", 0)
        self.port = listener.port
        try:
            yield self
        finally:
            await listener.cleanup()

    def client_context(self, name: str | None, authority: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if name:
            (authority or self.authority).issue_cert(f"{name.replace(':', '-')}.x", common_name=name).configure_cert(
                context
            )
        return context

    @asynccontextmanager
    async def client(
        self, name: str | None = "system:kube-scheduler", authority: trustme.CA | None = None
    ) -> AsyncIterator[Callable[..., Any]]:
        connector = aiohttp.TCPConnector(ssl=self.client_context(name, authority))
        async with aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=connector) as session:

            async def post(path: str, body: Any = b"{}", method: str = "POST", **more: Any) -> tuple[int, str]:
                async with session.request(method, path, data=body, **more) as answer:
                    return answer.status, await answer.text()

            yield post


@pytest.fixture
def site(stage: Any, tmp_path: Any) -> Site:
    stage.node("a")
    return Site(stage, tmp_path)


async def test_kube_scheduler_s_certificate_opens_the_extender_verbs(site: Site) -> None:
    async with site.serve(), site.client() as post:
        pod = site.stage.pod("p", gpu=1, gpumem=4000)
        status, text = await post("/filter", site.stage.ask(pod, ["a"]))
        assert (status, json.loads(text)["NodeNames"]) == (200, ["a"])
        status, text = await post("/prioritize", site.stage.ask(pod, ["a"]))
        assert (status, json.loads(text)) == (200, [{"Host": "a", "Score": 10}])
        bind = {"PodName": "p", "PodNamespace": "default", "PodUID": "uid-p", "Node": "a"}
        assert await post("/bind", json.dumps(bind)) == (200, '{"Error":""}')


@pytest.mark.parametrize("path", EXTENDER)
@pytest.mark.parametrize("name", [None, "some-pod"])
async def test_nobody_else_may_use_them(site: Site, path: str, name: str | None) -> None:
    async with site.serve(), site.client(name) as post:
        status, text = await post(path, b"{}")
        assert status == 403
        assert (name or "no client certificate") in text
        assert site.stage.api.bindings == []


async def test_a_certificate_of_another_authority_gets_no_connection(site: Site) -> None:
    async with site.serve(), site.client("system:kube-scheduler", site.other) as post:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await post("/filter")


async def test_webhook_health_and_version_need_no_certificate(site: Site) -> None:
    async with site.serve(), site.client(None) as post:
        status, text = await post("/webhook", b"{}")
        assert status == 200
        assert json.loads(text)["response"]["allowed"] is False
        assert (await post("/healthz", None, "GET"))[0] == 200
        assert (await post("/readyz", None, "GET"))[0] == 200
        assert json.loads((await post("/version", None, "GET"))[1])["version"]
        site.stage.gate.follow("another replica decides")
        status, text = await post("/readyz", None, "GET")
        assert status == 503
        assert "another replica decides" in text


async def test_authentication_can_be_turned_off_by_name(site: Site) -> None:
    async with site.serve(clients=None), site.client(None) as post:
        assert (await post("/filter", b"{}"))[0] == 200


async def test_wrong_methods_and_paths_are_told_apart(site: Site) -> None:
    async with site.serve(), site.client() as post:
        assert (await post("/filter", None, "GET"))[0] == 405
        assert (await post("/healthz"))[0] == 405
        assert (await post("/nothing"))[0] == 404


async def test_a_body_over_the_limit_is_refused_before_it_is_read(site: Site) -> None:
    async with site.serve(max_body=1000), site.client() as post:
        assert (await post("/filter", b"x" * 1001))[0] == 413

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000

        assert await outcome(post("/filter", endless())) in (413, "cut off")


async def outcome(answer: Any) -> int | str:
    """The status, or that the connection ended first."""
    try:
        status: int = (await answer)[0]
    except (aiohttp.ClientError, ConnectionError):
        return "cut off"
    return status


async def test_no_body_and_a_packed_body_are_refused(site: Site) -> None:
    async with site.serve(), site.client() as post:
        assert await post("/filter", b"") == (400, "Please send a request body\n")
        assert (await post("/filter", b"xx", headers={"Content-Encoding": "gzip"}))[0] == 415


async def test_a_client_that_stops_in_the_middle_is_let_go(site: Site) -> None:
    async with site.serve(body_timeout=0.05):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.port, ssl=site.client_context("system:kube-scheduler")
        )
        writer.write(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await reader.read(100)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


LARGE = b" " * (SMALL + 1) + b"{}"
CROWDED = b"HTTP/1.1 503"


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def slow(
    site: Site, sent: bytes, peer: str = "127.0.0.1", *, chunked: bool = False, fits: bool = True
) -> AsyncIterator[Line]:
    """Somebody without a certificate who begins a large review with `sent`, and waits when all of that is read.

    `fits`: beside all that is there.
    """
    room = site.edge._room
    before = set(room._bodies)
    arrived = len(sent) + (room.taken if fits else 0)
    context = site.client_context(None)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=context, local_addr=(peer, 0))
    length = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(sent) if chunked else b"Content-Length: 900000\r\n\r\n"
    try:
        writer.write(b"POST /webhook HTTP/1.1\r\nHost: x\r\n" + length + sent)
        await until(lambda: any(one.size == len(sent) for one in set(room._bodies) - before))
        assert not fits or room.taken == arrived
        yield reader, writer
    finally:
        writer.close()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("size", [2, 64 << 10])
async def test_a_small_review_needs_no_room_and_nobody_gives_way_to_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("hami.scheduler.edge.room.BODIES", 1)
    async with site.serve(), slow(site, b" " * 100, "127.0.0.2"), site.client(None) as post:
        assert (await post("/webhook", b" " * (size - 2) + b"{}"))[0] == 200
        assert len(site.edge._room) == 1


async def test_any_number_of_slow_strangers_keeps_no_review_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many as there may be at once the one that came first gives way."""
    monkeypatch.setattr("hami.scheduler.edge.room.BODIES", 8)
    async with site.serve(), site.client(None) as post, AsyncExitStack() as stack:
        strangers = [(await stack.enter_async_context(slow(site, b"{")))[0] for _ in range(8)]
        assert (await post("/webhook", LARGE))[0] == 200
        assert (await strangers[0].read(100)).startswith(CROWDED)
        await stack.enter_async_context(slow(site, b"{", chunked=True))
        assert (await post("/webhook", LARGE))[0] == 200
        assert (await strangers[1].read(100)).startswith(CROWDED)
        assert len(site.edge._room) == 7


async def test_strangers_that_hold_all_the_memory_there_is_give_it_to_who_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more than that is ever held."""
    monkeypatch.setattr("hami.scheduler.edge.room.BYTES", 2 * MIB)
    async with site.serve(), site.client(None) as post, AsyncExitStack() as stack:
        (first, _), *_ = [await stack.enter_async_context(slow(site, b" " * 500_000)) for _ in range(4)]
        assert (await post("/webhook", b" " * 550_000 + b"{}"))[0] == 200
        assert (await first.read(100)).startswith(CROWDED)
        assert (len(site.edge._room), site.edge._room.taken) == (3, 1_500_000)


async def test_a_review_that_came_first_is_read_to_its_end_however_much_one_stranger_brings(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender has no more than a share of the memory, nor of the bodies."""
    monkeypatch.setattr("hami.scheduler.edge.room.BYTES", 2 * MIB)
    monkeypatch.setattr("hami.scheduler.edge.room.BODIES", 6)
    async with site.serve(), AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(slow(site, b" " * 300_000))
        strangers = [(await stack.enter_async_context(slow(site, b" " * 440_000, "127.0.0.2")))[0] for _ in range(4)]
        await stack.enter_async_context(slow(site, b" " * 100_000, "127.0.0.2", fits=False))
        assert (await strangers[0].read(100)).startswith(CROWDED)
        for _ in range(3):
            await stack.enter_async_context(slow(site, b" ", "127.0.0.2", fits=False))
        assert (await strangers[1].read(100)).startswith(CROWDED)
        writer.write(b" " * 599_998 + b"{}")
        assert (await reader.read(100)).startswith(b"HTTP/1.1 200")


async def test_a_large_body_without_a_length_is_cut_at_the_limit(site: Site) -> None:
    async with site.serve(), site.client(None) as post:

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 100_000

        assert await outcome(post("/webhook", endless())) in (413, "cut off")
        await until(lambda: not len(site.edge._room))
        assert (await post("/webhook", b" " * (MIB - 2) + b"{}"))[0] == 200


async def test_a_stranger_s_large_body_must_arrive_soon(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.scheduler.edge.serve.LARGE_S", 0.05)
    async with site.serve():
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=site.client_context(None))
        writer.write(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
        async with asyncio.timeout(30):  # anybody else has 60 s
            assert (await reader.read(100)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_what_is_no_http_gets_a_400(site: Site) -> None:
    async with site.serve():
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=site.client_context(None))
        writer.write(b"\x00\xff nonsense\r\n\r\n")
        assert (await reader.read(100)).startswith(b"HTTP/1.")
        writer.close()


async def test_kube_scheduler_s_connections_above_the_limit_are_closed_and_the_others_served(site: Site) -> None:
    async with site.serve(max_connections=2), site.client() as first, site.client() as second:
        assert (await first("/healthz", None, "GET"))[0] == 200
        assert (await second("/healthz", None, "GET"))[0] == 200
        async with site.client() as third:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await third("/healthz", None, "GET")
        assert (await first("/healthz", None, "GET"))[0] == 200


@asynccontextmanager
async def idle(site: Site, peer: str = "127.0.0.1") -> AsyncIterator[Line]:
    """A connection without a certificate that has asked one thing, and has its answer."""
    context = site.client_context(None)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=context, local_addr=(peer, 0))
    try:
        await asked(reader, writer)
        yield reader, writer
    finally:
        writer.close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")


async def test_connections_of_strangers_give_way_to_who_comes_and_kube_scheduler_s_never(site: Site) -> None:
    """That which has asked nothing for longest is closed."""
    async with site.serve(max_connections=3), site.client() as own, AsyncExitStack() as stack:
        assert (await own("/healthz", None, "GET"))[0] == 200
        first, second = [await stack.enter_async_context(idle(site)) for _ in range(2)]
        await asked(*first)
        await stack.enter_async_context(idle(site))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asked(*second)
        await asked(*first)
        assert (await own("/healthz", None, "GET"))[0] == 200


async def test_one_address_with_many_connections_closes_none_of_another(site: Site) -> None:
    async with site.serve(max_connections=4), AsyncExitStack() as stack:
        server = await stack.enter_async_context(idle(site))
        strangers = [await stack.enter_async_context(idle(site, "127.0.0.2")) for _ in range(6)]
        await asked(*server)
        await asked(*strangers[-1])
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asked(*strangers[0])


@asynccontextmanager
async def standing(site: Site, peers: Iterable[str]) -> AsyncIterator[list[Line]]:
    """Connections that send no byte of their TLS handshake, one after the other."""
    before = site.listener.accepted
    lines = [await asyncio.open_connection("127.0.0.1", site.port, local_addr=(peer, 0)) for peer in peers]
    try:
        await until(lambda: site.listener.accepted == before + len(lines))
        yield lines
    finally:
        for _, writer in lines:
            writer.close()


@pytest.mark.parametrize("addresses", [1, 100])
async def test_any_number_of_unfinished_handshakes_keeps_no_review_out(site: Site, addresses: int) -> None:
    async with site.serve(max_connections=4), standing(site, (f"127.0.1.{n % addresses}" for n in range(200))) as lines:
        assert len(site.listener) == FEWEST
        assert site.ended == ["gave_way"] * (200 - FEWEST)
        assert await lines[0][0].read() == b""  # the first is closed
        async with idle(site) as line:
            await asked(*line)
        assert len(site.listener) == FEWEST - 1


async def test_one_address_with_many_unfinished_handshakes_ends_none_of_another(site: Site) -> None:
    """Nor one that is slow: its first bytes come when all the others are there."""
    peers = ["127.0.0.1"] + ["127.0.0.2"] * 100
    async with site.serve(max_connections=4), standing(site, peers) as lines:
        assert await lines[1][0].read() == b""
        assert [one.peer for one in site.listener._handshakes].count("127.0.0.1") == 1


async def test_a_handshake_must_be_finished_soon(site: Site) -> None:
    async with site.serve(deadline=0.05), standing(site, ["127.0.0.1"]) as lines:
        async with asyncio.timeout(30):
            assert await lines[0][0].read() == b""
        assert (site.ended, len(site.listener)) == (["late"], 0)


async def test_what_became_of_handshakes_is_counted_and_told_seldom(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.serve(max_connections=4):
        async with idle(site):
            assert site.ended == ["done"]
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # no TLS
        await reader.read()
        writer.close()
        assert site.ended == ["done", "failed"]
        assert not caplog.records
        async with standing(site, ["127.0.0.2"] * (FEWEST + 3)):
            (told,) = [one for one in caplog.records if one.name == "hami.scheduler.edge.listener"]
            assert (told.gave_way, told.last_peer) == (1, "127.0.0.2")  # type: ignore[attr-defined]


async def test_a_listener_without_descriptors_goes_on_when_there_are_some(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And makes some free itself, of those who stand at the door. It says so once, not at each try."""
    async with site.serve(), standing(site, ["127.0.0.2"] * 3) as lines:
        none = OSError(errno.EMFILE, "Too many open files")
        monkeypatch.setattr("socket.socket.accept", Mock(side_effect=none))
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        async with asyncio.timeout(30):
            assert [await line[0].read() for line in lines] == [b"", b"", b""]
        assert [one.message for one in caplog.records].count("a connection could not be taken in") == 1
        monkeypatch.undo()
        await until(lambda: site.listener.accepted == 4)
        writer.close()


async def test_while_there_are_no_descriptors_nobody_turns_in_circles(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hami.scheduler.edge.listener.AGAIN_S", 600.0)
    accept = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    async with site.serve(), standing(site, ["127.0.0.2"]) as lines:
        monkeypatch.setattr("socket.socket.accept", accept)
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        async with asyncio.timeout(30):
            assert await lines[0][0].read() == b""
        for _ in range(100):
            await asyncio.sleep(0)
        assert accept.call_count == 1
        writer.close()


async def test_connections_that_come_in_one_moment_are_closed_too_where_they_are_too_many(site: Site) -> None:
    """Before anything was done for them."""
    async with site.serve(max_connections=4):
        with ExitStack() as stack:
            address = ("127.0.0.1", site.port)
            many = [stack.enter_context(socket.create_connection(address)) for _ in range(FEWEST + 20)]
            await until(lambda: site.listener.accepted == len(many))
            assert site.ended == ["gave_way"] * 20
            loop = asyncio.get_running_loop()
            for one in many[:20]:
                one.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(one, 1), 30) == b""
            assert len(site.listener) == FEWEST


async def test_an_address_that_is_not_to_be_had_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await bound("192.0.2.1", 0)  # of nobody (RFC 5737)
    for one in await bound("localhost", 0):
        one.close()


async def test_a_fault_of_ours_stays_in_the_verb_s_own_form(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(type(site.stage.engine), "decide", broken)
    async with site.serve(), site.client() as post:
        status, text = await post("/filter", site.stage.ask(site.stage.pod("p", gpu=1), ["a"]))
        assert status == 200
        assert json.loads(text)["Error"] == "filter failed inside the scheduler; its log says why"


async def test_durations_and_codes_are_counted(site: Site) -> None:
    async with site.serve(), site.client() as post:
        await post("/filter", site.stage.ask(site.stage.pod("p", gpu=1), ["a"]))
        await post("/prioritize", b"[")
    figure = site.stage.figure
    assert figure("hami_scheduler_request_duration_seconds_count", verb="filter") == 1
    assert figure("hami_scheduler_requests_total", verb="filter", code="200") == 1
    assert figure("hami_scheduler_requests_total", verb="prioritize", code="400") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
NAMES = (
    "Pod",
    "Nodes",
    "NodeNames",
    "PodName",
    "PodUID",
    "Node",
    "request",
    "metadata",
    "spec",
    "containers",
    "limits",
)
SHAPED = st.recursive(
    JSON, lambda inner: st.dictionaries(st.sampled_from(NAMES) | st.just("nvidia.com/gpu"), inner), max_leaves=15
)
BODIES = st.one_of(
    st.binary(min_size=1, max_size=200),
    SHAPED.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.integers(1, 60_000).map(lambda depth: b"[" * depth),
    st.integers(1, 60_000).map(lambda depth: b'{"Pod":' * depth + b"1" + b"}" * depth),
    st.integers(1, 20_000).map(lambda depth: b'{"request":{"object":' + b'{"a":' * depth + b"1" + b"}" * (depth + 2)),
)


@given(bodies=st.lists(st.tuples(st.sampled_from((*EXTENDER, "/webhook")), BODIES), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_whatever_gets_a_5xx(stage: Any, bodies: list[tuple[str, bytes]]) -> None:
    # Without sockets, so that there is time for many; tests/flow does it over TLS.
    routes = site_routes(stage)
    edge = Edge(routes, {}, stage.engine.meters, clients=None, body_timeout=1.0)
    for path, body in bodies:
        response = await edge.answer(routes["POST", path], body)
        assert isinstance(response.body, bytes)
        assert response.status in (200, 400, 409), (path, response.status, response.body)
        if response.status == 200 and path in ("/filter", "/bind"):
            assert "inside the scheduler" not in json.loads(response.body)["Error"]
        if path == "/webhook":
            assert json.loads(response.body)["response"]["allowed"] in (True, False)
    assert stage.ledger.recount() == []
