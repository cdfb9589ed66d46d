"""Paths, errors, lines, pages, backoff and the token bucket: the parts without a connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.kube import errors, paths
from hami.kube.backoff import Backoff
from hami.kube.errors import ApiError
from hami.kube.lines import Lines
from hami.kube.pace import Bucket
from hami.kube.page import decode_page
from hami.model.errors import Conflict, Malformed, Retry, Unavailable
from hami.sim.apiserver.route import parse
from hami.wire.objects import Pod


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (paths.pods(), "/api/v1/pods"),
        (paths.pods("ns"), "/api/v1/namespaces/ns/pods"),
        (paths.pods("ns", "p", "binding"), "/api/v1/namespaces/ns/pods/p/binding"),
        (paths.nodes("n1", "status"), "/api/v1/nodes/n1/status"),
        (paths.namespaces("ns"), "/api/v1/namespaces/ns"),
        (paths.leases("ns", "l"), "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"),
        (paths.resource("apps/v1", "deployments", "ns"), "/apis/apps/v1/namespaces/ns/deployments"),
        (paths.resource("v1", "services", "ns", "s"), "/api/v1/namespaces/ns/services/s"),
    ],
)
def test_a_path_is_what_kubernetes_serves(built: str, expected: str) -> None:
    assert built == expected
    assert parse(built)


def test_a_name_cannot_leave_its_segment() -> None:
    assert paths.pods("a/../b", "c?d#e") == "/api/v1/namespaces/a%2F..%2Fb/pods/c%3Fd%23e"


def test_a_subresource_needs_a_name() -> None:
    with pytest.raises(ValueError, match="binding"):
        paths.pods("ns", sub="binding")


@pytest.mark.parametrize(
    ("code", "reason", "kind", "retry"),
    [
        (403, "Forbidden", errors.Forbidden, Retry.LATER),
        (404, "NotFound", errors.NotFound, Retry.NEVER),
        (409, "Conflict", errors.Conflicted, Retry.SOON),
        (409, "AlreadyExists", errors.AlreadyExists, Retry.NEVER),
        (410, "Expired", errors.Gone, Retry.SOON),
        (410, "Gone", errors.Gone, Retry.SOON),
        (422, "Invalid", errors.Invalid, Retry.NEVER),
        (429, "TooManyRequests", errors.TooMany, Retry.LATER),
        (503, "ServiceUnavailable", errors.ServerFault, Retry.LATER),
    ],
)
def test_a_status_becomes_the_error_of_its_kind(code: int, reason: str, kind: type[ApiError], retry: Retry) -> None:
    body = b'{"kind":"Status","code":%d,"reason":"%s","message":"why"}' % (code, reason.encode())
    error = errors.from_response(code, body)
    assert type(error) is kind
    assert (error.status, error.reason, error.message, error.retry) == (code, reason, "why", retry)


def test_errors_are_found_under_the_models_names_too() -> None:
    assert isinstance(errors.from_response(409, b""), Conflict)
    assert isinstance(errors.from_response(502, b""), Unavailable)


def test_a_page_of_html_becomes_a_short_message() -> None:
    error = errors.from_response(502, b"<html>" + b"x" * 100_000)
    assert error.reason == "BadGateway"
    assert error.message.startswith("<html>")
    assert len(str(error)) < 700


@given(st.lists(st.binary(max_size=8).filter(lambda text: b"\n" not in text)), st.data())
def test_lines_come_out_whole_wherever_the_chunks_were_cut(wanted: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(text + b"\n" for text in wanted)
    lines = Lines()
    found: list[bytes] = []
    while stream:
        at = data.draw(st.integers(1, len(stream)))
        found += lines.feed(stream[:at])
        stream = stream[at:]
    assert found == [text for text in wanted if text]


def test_a_huge_line_costs_linear_time_and_an_endless_one_ends() -> None:
    lines = Lines(longest=40 << 20)
    chunk = b"x" * (1 << 16)
    for _ in range(500):  # 32 MiB; joined a chunk at a time this would copy 8 GB
        assert lines.feed(chunk) == []
    assert [len(line) for line in lines.feed(b"y\n")] == [500 * len(chunk) + 1]
    lines.feed(b"z" * (40 << 20))
    with pytest.raises(Unavailable, match="40 MiB"):
        lines.feed(b"z")


def test_a_list_of_nothing_may_have_null_items() -> None:
    page = decode_page(b'{"metadata":{"resourceVersion":"5"},"items":null}', Pod, "/p")
    assert (page.items, page.version, page.next) == ([], "5", "")


def test_an_answer_that_is_no_list_is_malformed_and_names_the_path() -> None:
    with pytest.raises(Malformed, match="/api/v1/pods"):
        decode_page(b"[1]", Pod, "/api/v1/pods")


def test_waiting_grows_to_its_limit_and_starts_over_after_a_success() -> None:
    backoff = Backoff(first=1.0, most=5.0, chance=lambda: 1.0)
    assert [backoff.wait() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.wait() == 1.0
    assert Backoff(first=1.0, chance=lambda: 0.0).wait() == 0.5


def test_a_bucket_gives_its_burst_and_then_its_rate_in_order() -> None:
    now = [0.0]
    bucket = Bucket(rate=2.0, burst=3.0, clock=lambda: now[0])
    assert [bucket.reserve() for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    now[0] = 10.0
    assert bucket.reserve() == 0.0


def test_a_bucket_never_saves_more_than_its_burst() -> None:
    now = [0.0]
    bucket = Bucket(rate=1.0, burst=2.0, clock=lambda: now[0])
    now[0] = 1e6
    assert [bucket.reserve() for _ in range(3)] == [0.0, 0.0, 1.0]


def test_what_may_be_left_out_never_goes_on_credit() -> None:
    now = [0.0]
    bucket = Bucket(rate=1.0, burst=2.0, clock=lambda: now[0])
    assert [bucket.spare() for _ in range(4)] == [True, True, False, False]
    now[0] = 1.0
    assert [bucket.spare() for _ in range(2)] == [True, False]
