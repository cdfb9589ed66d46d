"""The scheduler's ports as anybody on the network meets them: certificates, broken bodies, slow clients."""

import json
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hami.observe.running import allow_descriptors
from hami.scheduler.edge.tls import names_of

if TYPE_CHECKING:
    from hami.lab.product import Product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

EXTENDER = ("/filter", "/prioritize", "/bind", "/preempt")


def test_only_kube_scheduler_s_certificate_opens_the_extender(product: "Product") -> None:
    replica = product.replicas[0]
    stranger = product.lab.identity("system:serviceaccount:default:default").pair
    for path in EXTENDER:
        status, text = product.post(replica, path, b"{}", certificate=stranger)
        assert status == 403, path
        assert "system:serviceaccount:default:default" in text
        connection = product.connection(replica, None)
        connection.request("POST", path, b"{}")
        assert connection.getresponse().status == 403
        connection.close()
    assert product.post(replica, "/filter", b"{}")[1]["Error"]


@given(
    path=st.sampled_from((*EXTENDER, "/webhook")),
    body=st.one_of(
        st.binary(min_size=1, max_size=3000),
        # Below the 1 MiB that /bind takes; larger ones have a test of their own.
        st.integers(1, 140_000).map(lambda depth: b'{"Pod":' * depth),
        st.integers(1, 500_000).map(lambda depth: b"[" * depth + b"]" * depth),
        st.text(min_size=1).map(
            lambda text: json.dumps({"Pod": {"metadata": {"uid": text}}, "NodeNames": [text]}).encode()
        ),
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_body_whatever_gets_a_5xx(product: "Product", path: str, body: bytes) -> None:  # 2.9
    status, answer = product.post(product.replicas[0], path, body)
    assert status in (200, 400, 409)
    if path == "/webhook":
        assert answer["response"]["allowed"] is False


def test_a_huge_body_is_refused_and_memory_stays_bounded(product: "Product") -> None:
    replica = product.replicas[0]
    connection = product.connection(replica, None)
    connection.putrequest("POST", "/webhook")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_hundred_clients_that_say_nothing_do_not_keep_others_waiting(product: "Product") -> None:
    replica = product.replicas[0]
    context = ssl.create_default_context(cafile=str(product.serving.authority))
    silent = [
        context.wrap_socket(socket.create_connection(("127.0.0.1", replica.port)), server_hostname="127.0.0.1")
        for _ in range(100)
    ]
    try:
        for connection in silent:
            connection.sendall(b"POST /webhook HTTP/1.1\r\nContent-Le")
        assert product.post(replica, "/filter", b"{}")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_thousand_handshakes_that_never_end_keep_nobody_out(product: "Product") -> None:
    allow_descriptors(4096)
    replica = product.replicas[0]
    standing = []
    try:
        for number in range(1000):
            source = (f"127.0.{number % 5}.{1 + number % 250}", 0)
            standing.append(socket.create_connection(("127.0.0.1", replica.port), source_address=source))
        assert product.post(replica, "/filter", b"{}")[0] == 200
        connection = product.connection(replica, None)
        connection.request("POST", "/webhook", b"{}")
        assert connection.getresponse().status == 200
        connection.close()
        ended = select.poll()
        for one in standing:
            ended.register(one, select.POLLIN)
        assert len(ended.poll(0)) > 500
    finally:
        for one in standing:
            one.close()


def test_a_new_certificate_is_served_without_a_restart(product: "Product") -> None:
    replica = product.replicas[0]

    def served() -> Any:
        context = ssl.create_default_context(cafile=str(product.serving.authority))
        with (
            socket.create_connection(("127.0.0.1", replica.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            shown = connection.getpeercert()
            assert shown is not None
            return shown["serialNumber"], names_of(shown)

    before, _ = served()
    product.lab.server_certificate("hami-scheduler-tls")  # the same files, written anew
    product.lab.wait_for("the new certificate", lambda: served()[0] != before, timeout=60)
