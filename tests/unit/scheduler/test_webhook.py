"""The webhook: what it writes into a pod, what it refuses, and with which words."""

import base64
import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.config.load import device_config
from hami.scheduler.verbs.webhook import WebhookSettings, review
from hami.vendors.ask import MOST_CONTAINERS
from hami.vendors.table import load

GPU, MEM, PERCENT, CORES = "nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpumem-percentage", "nvidia.com/gpucores"
Json = dict[str, Any]


def container(limits: Mapping[str, object] | None = None, name: str = "c", **further: object) -> Json:
    return {"name": name, "image": "x", "resources": {"limits": dict(limits)} if limits else {}, **further}


def pod(*containers: Json, annotations: object = None, labels: object = None, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": annotations, "labels": labels, "creationTimestamp": None},
        "spec": {"containers": list(containers), "schedulerName": "default-scheduler", **spec},
        "status": {},
    }


def ask(given: object, config: str = "", settings: WebhookSettings = WebhookSettings(), **request: object) -> Json:  # noqa: B008
    """The response to a pod that is being created."""
    asked = {"uid": "42", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": given}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**asked, **request}}
    answer = json.loads(review(json.dumps(body).encode(), settings, load(device_config(config, "c"))))
    assert (answer["kind"], answer["response"]["uid"]) == ("AdmissionReview", "42")
    response: Json = answer["response"]
    return response


def ops(response: Json) -> list[Json]:
    assert response["allowed"], response
    listed: list[Json] = json.loads(base64.b64decode(response.get("patch", "W10=")))
    return listed


def patched(given: Json, config: str = "", settings: WebhookSettings = WebhookSettings()) -> Json:  # noqa: B008
    """The pod as the API server would go on with it."""
    after = copy.deepcopy(given)
    for op in ops(ask(given, config, settings)):
        *way, last = (step.replace("~1", "/").replace("~0", "~") for step in op["path"].split("/")[1:])
        parent: Any = after
        for step in way:
            parent = parent[int(step)] if isinstance(parent, list) else parent[step]
        if isinstance(parent, list) and last == "-":
            parent.append(op["value"])
        elif isinstance(parent, list):
            assert op["op"] == "replace"
            parent[int(last)] = op["value"]
        else:
            assert (op["op"] == "replace") == (parent.get(last) is not None)
            parent[last] = op["value"]
    return after


def denial(given: object, config: str = "", **request: object) -> tuple[int, str]:
    response = ask(given, config, **request)
    assert not response["allowed"], response
    return response["status"]["code"], response["status"]["message"]


# what is written


def test_a_pod_without_cards_stays_untouched() -> None:
    assert ask(pod(container({"cpu": 1}))) == {"uid": "42", "allowed": True}


def test_a_gpu_pod_becomes_ours_and_complete() -> None:
    assert ops(ask(pod(container({GPU: 1})))) == [
        {"op": "replace", "path": "/spec/schedulerName", "value": "hami-scheduler"},
        {"op": "add", "path": "/spec/containers/0/resources/limits/nvidia.com~1gpucores", "value": "100"},
    ]


@pytest.mark.parametrize(
    ("limits", "after"),
    [
        ({GPU: "1"}, {GPU: "1", CORES: "100"}),
        ({GPU: "1", PERCENT: "100"}, {GPU: "1", PERCENT: "100", CORES: "100"}),
        ({GPU: "1", PERCENT: "50"}, {GPU: "1", PERCENT: "50"}),
        ({GPU: "1", MEM: "3k"}, {GPU: "1", MEM: "3k"}),
        ({GPU: "1", CORES: "20"}, {GPU: "1", CORES: "20"}),
        ({CORES: "30"}, {CORES: "30", GPU: "1"}),
        ({MEM: "3k", "cpu": "1"}, {MEM: "3k", "cpu": "1", GPU: "1"}),
        ({GPU: "0"}, {GPU: "0"}),
    ],
)
def test_limits_are_completed(limits: Json, after: Json) -> None:
    result = patched(pod(container(limits)))
    assert result["spec"]["containers"][0]["resources"]["limits"] == after
    assert result["spec"]["schedulerName"] == ("default-scheduler" if limits == {GPU: "0"} else "hami-scheduler")


def test_a_second_call_changes_nothing() -> None:
    config = "nvidia: {gpuCorePolicy: force, overwriteEnv: true, runtimeClassName: nvidia}"
    given = pod(
        container({CORES: 30, "nvidia.com/priority": 1}), container(name="d"), initContainers=[container({GPU: 1})]
    )
    once = patched(given, config)
    assert ops(ask(once, config)) == []


def test_environment_and_runtime_class_follow_the_configuration() -> None:
    config = "nvidia: {gpuCorePolicy: force, overwriteEnv: true, runtimeClassName: nvidia}"
    present = [{"name": "A", "value": "1"}, {"name": "GPU_CORE_UTILIZATION_POLICY", "valueFrom": {"fieldRef": {}}}]
    given = pod(container({GPU: 1, "nvidia.com/priority": 0}, env=present), container(name="d"))
    after = patched(given, config)["spec"]
    assert after["runtimeClassName"] == "nvidia"
    assert after["containers"][0]["env"] == [
        {"name": "A", "value": "1"},
        {"name": "GPU_CORE_UTILIZATION_POLICY", "value": "force"},
        {"name": "CUDA_TASK_PRIORITY", "value": "0"},
    ]
    assert after["containers"][1]["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}]
    assert (
        patched({**given, "spec": {**given["spec"], "runtimeClassName": "own"}}, config)["spec"]["runtimeClassName"]
        == "own"
    )


def test_missing_and_null_parents_are_made() -> None:
    for bare in (
        {"name": "c"},
        {"name": "c", "resources": None, "env": None},
        {"name": "c", "resources": {"limits": None}},
    ):
        after = patched(pod(container({GPU: 1}), bare), "nvidia: {overwriteEnv: true}")
        assert after["spec"]["containers"][1]["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}]
    requested = pod({"name": "c", "resources": {"requests": {GPU: "1"}}})
    assert patched(requested)["spec"]["containers"][0]["resources"]["limits"] == {CORES: "100"}


def test_init_containers_are_patched_at_their_own_place() -> None:
    after = patched(pod(container(), initContainers=[container(), container({MEM: 10})]))["spec"]
    assert after["initContainers"][1]["resources"]["limits"] == {MEM: 10, GPU: "1"}
    assert after["containers"][0]["resources"] == {}


# whose pod it is


@pytest.mark.parametrize(
    ("named", "settings", "ours"),
    [
        ("default-scheduler", WebhookSettings(), True),
        ("hami-scheduler", WebhookSettings(), True),
        ("", WebhookSettings(), True),
        ("volcano", WebhookSettings(), False),
        ("default-scheduler", WebhookSettings(force_overwrite_default_scheduler=False), False),
        ("hami-scheduler", WebhookSettings(force_overwrite_default_scheduler=False), True),
    ],
)
def test_only_pods_that_name_no_other_scheduler_are_ours(named: str, settings: WebhookSettings, ours: bool) -> None:
    given = pod(container({GPU: 1}), schedulerName=named)
    response = ask(given, settings=settings)
    if ours:
        assert patched(given, settings=settings)["spec"]["schedulerName"] == "hami-scheduler"
        return
    assert ops(response) == []
    (warning,) = response["warnings"]
    assert "will get no card" in warning


def test_a_foreign_pod_without_cards_is_not_even_warned_about() -> None:
    assert ask(pod(container(), schedulerName="volcano")) == {"uid": "42", "allowed": True}


def test_without_a_scheduler_name_none_is_written() -> None:
    settings = WebhookSettings(scheduler_name="")
    assert patched(pod(container({GPU: 1})), settings=settings)["spec"]["schedulerName"] == "default-scheduler"


# what is refused


@pytest.mark.parametrize("given", [pod(), pod() | {"spec": {"containers": None}}, pod() | {"spec": None}])
def test_a_pod_without_containers_is_refused(given: Json) -> None:
    assert denial(given) == (403, "pod has no containers")


@pytest.mark.parametrize("field", ["annotations", "labels"])
@pytest.mark.parametrize("scheduler", ["default-scheduler", "volcano", "hami-scheduler"])
@pytest.mark.parametrize(
    "key",
    ["hami.io/vgpu-node", "hami.io/vgpu-devices-allocated", "hami.io/bind-phase", "hami.io/dcu-devices-allocated"],
)
def test_a_forged_record_is_refused_and_named(field: str, scheduler: str, key: str) -> None:
    for limits in ({GPU: 1}, None):
        code, message = denial(pod(container(limits), schedulerName=scheduler, **{field: {key: "x"}}))
        assert code == 403
        assert message.startswith(f"metadata.{field}[{key}] is written by the scheduler only")


def test_a_privileged_container_is_refused_in_a_gpu_pod_only() -> None:
    privileged = {"securityContext": {"privileged": True}}
    code, message = denial(pod(container({GPU: 1}), container(name="d", **privileged)))
    assert (code, message[:26]) == (403, "container d is privileged:")
    assert denial(pod(container({GPU: 1}), initContainers=[container(name="i", **privileged)]))[1][:11] == "container i"
    assert denial(pod(container(), initContainers=[container({GPU: 1}, name="i", **privileged)]))[0] == 403
    assert denial(pod(container({GPU: 1}, **privileged), schedulerName="volcano"))[0] == 403
    assert ops(ask(pod(container(**privileged)))) == []
    assert ops(ask(pod(container({GPU: 0}, **privileged)))) == []


@pytest.mark.parametrize("scheduler", ["default-scheduler", "volcano"])
def test_a_gpu_pod_with_a_node_named_is_refused(scheduler: str) -> None:
    code, message = denial(pod(container({GPU: 1}), nodeName="n1", schedulerName=scheduler))
    assert (code, message[:46]) == (403, "pod has node assigned: spec.nodeName is n1: ca")
    assert ops(ask(pod(container(), nodeName="n1"))) == []


def test_a_request_that_cannot_be_meant_is_refused_with_its_path() -> None:
    assert denial(pod(container({GPU: 1, MEM: "5Gi"}))) == (
        422,
        "spec.containers[0].resources.limits[nvidia.com/gpumem]: '5Gi' is not usable: MiB as a plain number, 5120",
    )
    assert denial(pod(container({GPU: 1}), annotations={MEM: "4000"}))[0] == 422
    assert denial(pod(container({GPU: 1}), annotations={"hami.io/device-scoring-weights": "x"}))[0] == 422
    assert denial(pod(container({GPU: 1}), annotations={"nvidia.com/vgpu-mode": "x"}))[0] == 422


@pytest.mark.parametrize(
    "variable", [{"value": "true"}, {"value": "1"}, {"value": "yes"}, {"valueFrom": {"fieldRef": {}}}]
)
def test_limits_are_turned_off_only_where_the_administrator_allows_it(variable: Json) -> None:
    given = pod(container({GPU: 1}, env=[{"name": "CUDA_DISABLE_CONTROL", **variable}]))
    code, message = denial(given)
    assert code == 422
    assert message.startswith("spec.containers[0].env[CUDA_DISABLE_CONTROL]")
    assert ask(given, "nvidia: {allowDisableControl: true}")["allowed"]
    assert ask(pod(container({GPU: 1}, env=[{"name": "CUDA_DISABLE_CONTROL", "value": "false"}])))["allowed"]


# what is warned about


def test_words_that_count_for_nothing_are_told() -> None:
    annotations = {
        "hami.io/node-scheduler-policy": "packed",
        "hami.io/gpu-scheduler-policy": "spread,fast",
        "hami.io/gpu-schedular-policy": "binpack",
        "nvidia.com/numa-bind": "yes",
    }
    warnings = ask(pod(container({GPU: 1}), annotations=annotations))["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "metadata.annotations[nvidia.com/numa-bind]",
        "metadata.annotations[hami.io/node-scheduler-policy]",
        "metadata.annotations[hami.io/gpu-scheduler-policy]",
        "metadata.annotations[hami.io/gpu-schedular-policy] counts for nothing",
    ]
    assert warnings[1].startswith("metadata.annotations[hami.io/node-scheduler-policy]: 'packed' counts for nothing")
    assert warnings[2].startswith("metadata.annotations[hami.io/gpu-scheduler-policy]: 'fast' counts for nothing")
    assert "warnings" not in ask(pod(container({"cpu": 1}), annotations=annotations))


def test_warnings_are_short_enough_to_be_shown_whole() -> None:
    annotations = {"hami.io/gpu-scheduler-policy": "x" * 500, MEM: "5", "nvidia.com/numa-bind": "y" * 5000}
    response = ask(pod(container({GPU: 1, MEM: 5, PERCENT: 5}), annotations=annotations))
    assert all(len(warning) <= 256 for warning in response["warnings"])


# bodies of all kinds


def test_other_objects_and_operations_pass() -> None:
    forged = pod(container({GPU: 1}), annotations={"hami.io/vgpu-node": "n"})
    assert ask(forged, operation="UPDATE")["allowed"]
    assert ask(forged, subResource="status")["allowed"]
    assert ask({"spec": {}}, kind={"group": "apps", "version": "v1", "kind": "Deployment"})["allowed"]


@pytest.mark.parametrize(
    "given", [None, 5, [], "pod", {"spec": 5}, {"spec": {"containers": 5}}, {"spec": {"containers": [{"name": 5}]}},
              {"spec": {"containers": [{"resources": {"limits": {GPU: {}}}}]}}]
)  # fmt: skip
def test_what_is_no_pod_is_refused_with_the_requests_uid(given: object) -> None:
    assert denial(given)[0] in (400, 403)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"request":null}', b"\xff", b'{"request":{"uid":"1","object":']
)
def test_what_is_no_review_gets_a_refusal_all_the_same(body: bytes) -> None:
    answer = json.loads(review(body, WebhookSettings(), load(device_config("", "c"))))
    assert answer["response"]["allowed"] is False
    assert answer["response"]["status"]["code"] == 400


@pytest.mark.parametrize("depth", [500, 200_000])
def test_deep_nesting_is_survived(depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    body = (
        b'{"apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"kind":"Pod"},"operation":"CREATE","object":'
    )
    body += b'{"metadata":' + deep + b',"further":' + deep + b',"spec":{"containers":[{"name":"c","further":' + deep
    body += b',"resources":{"limits":{"nvidia.com/gpu":"1"}}}]}}}}'
    answer = json.loads(review(body, WebhookSettings(), load(device_config("", "c"))))
    assert answer["response"]["allowed"] is (depth == 500)


def test_bytes_that_are_no_text_are_refused() -> None:
    body = (
        b'{"apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"kind":"Pod"},"operation":"CREATE","object":'
    )
    body += b'{"further":"\xff","spec":{"containers":[{"name":"c","resources":{"limits":{"nvidia.com/gpu":"1"}}}]}}}}'
    answer = json.loads(review(body, WebhookSettings(), load(device_config("", "c"))))
    assert answer["response"]["allowed"] is False


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["containers", "initContainers", "resources", "limits", "env", "name", "value", GPU, MEM]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.fixed_dictionaries({"metadata": values, "spec": values}) | values)
def test_any_object_is_answered(given: object) -> None:
    response = ask(given)
    assert response["allowed"] or response["status"]["code"] in (400, 403, 422)


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_pod_of_very_many_containers_with_cards_is_refused_and_one_without_cards_is_left_alone(kind: str) -> None:
    def of(asking: int, others: int) -> Json:
        every = [*(container({GPU: 1}) for _ in range(asking)), *(container({"cpu": "1"}) for _ in range(others))]
        return pod(*every) if kind == "containers" else pod(container(), initContainers=every)

    assert ask(of(MOST_CONTAINERS, 50))["allowed"]
    refused = ask(of(MOST_CONTAINERS + 1, 0))
    said = "spec.containers: '101 that ask for cards' is not usable: at most 100, init containers too"
    assert refused["status"]["message"] == said
    assert ops(ask(of(0, 1000))) == []
