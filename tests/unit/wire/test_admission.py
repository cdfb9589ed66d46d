"""AdmissionReview in both versions, and JSON Pointers that survive slashes."""

import base64
import json

import pytest

from hami.model.errors import Malformed
from hami.wire.admission import decode_review, encode_allow, encode_deny, pointer


def body(version: str = "v1", **request: object) -> bytes:
    asked = {"uid": "42", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", **request}
    review = {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": asked}
    return json.dumps(review).encode()


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_answer_has_the_requests_version_and_uid(version: str) -> None:
    review = decode_review(body(version, object={"metadata": {"name": "p"}}))
    assert review.pod().metadata.name == "p"
    answer = json.loads(encode_allow(review))
    assert answer == {
        "apiVersion": f"admission.k8s.io/{version}",
        "kind": "AdmissionReview",
        "response": {"uid": "42", "allowed": True},
    }


def test_a_patch_is_base64_json_and_warnings_come_once() -> None:
    op = {"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}
    answer = json.loads(encode_allow(decode_review(body()), [op], ["a", "b", "a"]))["response"]
    assert json.loads(base64.b64decode(answer["patch"])) == [op]
    assert (answer["patchType"], answer["warnings"]) == ("JSONPatch", ["a", "b"])


def test_a_refusal_carries_code_message_and_reason() -> None:
    answer = json.loads(encode_deny(decode_review(body()), 403, "no"))["response"]
    assert answer == {
        "uid": "42",
        "allowed": False,
        "status": {"code": 403, "message": "no", "reason": "Forbidden"},
    }


def test_a_pods_nulls_mean_absent() -> None:
    pod = {"metadata": {"annotations": None}, "spec": {"containers": None, "nodeName": None}, "status": None}
    assert decode_review(body(object=pod)).pod().spec.containers == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"null",
        b'{"request":{}}',
        b'{"apiVersion":"admission.k8s.io/v2","request":{"uid":"1"}}',
        b'{"request":{"uid":5}}',
        b'{"request":{"uid":"1","object":' + b"[" * 100_000,
        b'{"request":{"uid":"1","object":{"a":"\xff"}' + b"}",
    ],
)
def test_what_is_no_review_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        decode_review(text)


def test_pointers_escape_what_json_pointer_escapes() -> None:
    assert pointer("metadata", "annotations", "a~b/c", 0) == "/metadata/annotations/a~0b~1c/0"
