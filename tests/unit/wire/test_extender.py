"""The extender protocol as kube-scheduler speaks it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.errors import Malformed
from hami.wire import extender
from hami.wire.extender import HostPriority, MetaPod, MetaVictims

POD = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u", "creationTimestamp": None, "annotations": None},
    "spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
    "status": {},
}


def body(**keys: object) -> bytes:
    return json.dumps(keys).encode()


def test_a_filter_request_carries_a_pod_and_names() -> None:
    args = extender.decode_filter(body(Pod=POD, Nodes=None, NodeNames=["node1", "node2"]))
    assert args.pod is not None
    assert (args.pod.metadata.uid, args.pod.spec.containers[0].name) == ("u", "a")
    assert args.names() == ["node1", "node2"]


@pytest.mark.parametrize("spelling", [str.lower, str.upper, lambda key: key[:1].lower() + key[1:]])
def test_top_level_keys_come_in_any_case(spelling: object) -> None:
    keys = {spelling(key): value for key, value in {"Pod": POD, "Nodes": None, "NodeNames": ["n"]}.items()}  # type: ignore[operator]
    assert extender.decode_filter(json.dumps(keys).encode()) == extender.decode_filter(body(Pod=POD, NodeNames=["n"]))
    bind = {"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "n"}
    read = extender.decode_bind(json.dumps({spelling(key): value for key, value in bind.items()}).encode())  # type: ignore[operator]
    assert (read.pod_name, read.pod_namespace, read.pod_uid, read.node) == ("p", "d", "u", "n")


def test_names_are_answered_with_names_and_every_other_node_with_its_reason() -> None:
    args = extender.decode_filter(body(Pod=POD, NodeNames=["node1", "node2"]))
    answer = extender.encode_filter_result(args, ["node2"], {"node1": "2/2 CardInsufficientMemory"})
    assert json.loads(answer) == {
        "Nodes": None,
        "NodeNames": ["node2"],
        "FailedNodes": {"node1": "2/2 CardInsufficientMemory"},
        "FailedAndUnresolvableNodes": None,
        "Error": "",
    }


def test_whole_nodes_are_answered_with_the_same_whole_nodes() -> None:
    nodes = [{"metadata": {"name": name}, "status": {"anything": [1, {"x": None}]}} for name in ("node1", "node2")]
    args = extender.decode_filter(body(Pod=POD, Nodes={"metadata": {}, "items": nodes}, NodeNames=None))
    assert args.names() == ["node1", "node2"]
    answer = json.loads(extender.encode_filter_result(args, ["node2"], {"node1": "no"}, {"node1": "never"}))
    assert answer["Nodes"]["items"] == [nodes[1]]
    assert answer["NodeNames"] is None
    assert answer["FailedAndUnresolvableNodes"] == {"node1": "never"}


def test_an_error_fills_only_the_error() -> None:
    answer = json.loads(extender.encode_filter_error("extender args missing pod"))
    assert answer.pop("Error") == "extender args missing pod"
    assert set(answer.values()) == {None}
    assert json.loads(extender.encode_bind_result()) == {"Error": ""}
    assert json.loads(extender.encode_bind_result("gone")) == {"Error": "gone"}


def test_a_missing_or_null_pod_is_left_to_the_caller_and_missing_nodes_are_a_fault() -> None:
    assert extender.decode_filter(body(NodeNames=[])).pod is None
    args = extender.decode_filter(body(Pod=None, Nodes=None, NodeNames=None))
    assert args.pod is None
    with pytest.raises(Malformed):
        args.names()


def test_priorities_are_a_bare_list() -> None:
    assert json.loads(extender.encode_priorities([HostPriority("n", 10)])) == [{"Host": "n", "Score": 10}]


def test_victims_come_by_uid_or_as_pods_and_go_by_uid() -> None:
    meta = body(Pod=POD, NodeNameToMetaVictims={"n": {"Pods": [{"UID": "v"}], "NumPDBViolations": 1}})
    whole = body(Pod=POD, NodeNameToVictims={"n": {"Pods": [{"metadata": {"uid": "v"}}], "NumPDBViolations": 1}})
    wanted = {"n": MetaVictims([MetaPod("v")], 1)}
    assert extender.decode_preempt(meta).victims() == wanted
    assert extender.decode_preempt(whole).victims() == wanted
    assert json.loads(extender.encode_preempt_result(wanted | {"m": MetaVictims()})) == {
        "NodeNameToMetaVictims": {
            "n": {"Pods": [{"UID": "v"}], "NumPDBViolations": 1},
            "m": {"Pods": [], "NumPDBViolations": 0},
        }
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"", "$"),
        (b"null", "$"),
        (b"[]", "$"),
        (b'{"Pod":5}', "$.Pod"),
        (b'{"Pod":{"spec":{"containers":[{"name":1}]}}}', "$.Pod.spec.containers[0].name"),
        (b'{"pod":{},"nodenames":[1]}', "$.NodeNames[0]"),
        (b'{"Pod":{"metadata":{"name":"\xff"}}}', "$"),
        (b'{"Pod":' + b"[" * 100_000, "$.Pod"),
        (b'{"Further":' + b"[" * 100_000, "$"),
    ],
)
def test_a_broken_filter_request_is_malformed_at_its_place(text: bytes, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        extender.decode_filter(text).names()
    assert fault.value.path == path


@pytest.mark.parametrize("missing", ["PodName", "PodNamespace", "PodUID", "Node"])
def test_a_bind_request_names_all_four(missing: str) -> None:
    keys = {"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "n"}
    with pytest.raises(Malformed) as fault:
        extender.decode_bind(json.dumps({**keys, missing: ""}).encode())
    assert fault.value.path == f"$.{missing}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "spec", "items", "containers", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["Pod", "pod", "NODES", "NodeNames", "nodenames"]), json_values, max_size=4))
def test_any_object_decodes_or_is_malformed(keys: dict[str, object]) -> None:
    for decode in (extender.decode_filter, extender.decode_bind, extender.decode_preempt):
        with contextlib.suppress(Malformed):
            decode(json.dumps(keys).encode())


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_malformed(body: bytes) -> None:
    for decode in (extender.decode_filter, extender.decode_bind, extender.decode_preempt):
        with contextlib.suppress(Malformed):
            decode(body)
