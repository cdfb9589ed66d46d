"""AdmissionReview, v1 and v1beta1: bytes of the webhook's request and answer.

Reads the narrow pod for decisions and keeps the object's own bytes, from which
the patch is made: what we do not know of a pod we do not touch.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from hami.model.errors import Malformed
from hami.wire.faults import decoded
from hami.wire.objects import Pod

API_VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")

PatchOp = Mapping[str, Any]
"""One JSON Patch operation: ``op``, ``path`` (`pointer`) and ``value``."""


class GroupVersionKind(Struct, frozen=True):
    group: str = ""
    version: str = ""
    kind: str = ""


class UserInfo(Struct, frozen=True):
    username: str = ""
    groups: list[str] | None = None


class _Request(Struct, frozen=True, rename="camel"):
    uid: str = ""
    kind: GroupVersionKind = GroupVersionKind()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    user_info: UserInfo = UserInfo()
    object: Raw = Raw(b"null")


class _Review(Struct, frozen=True, rename="camel"):
    api_version: str = API_VERSIONS[0]
    request: _Request | None = None


class Review(Struct, frozen=True):
    """What an AdmissionReview asks."""

    uid: str
    api_version: str
    kind: str
    sub_resource: str
    operation: str
    namespace: str
    """Of the request: a pod that is being created may not carry its own yet."""
    username: str
    raw_object: bytes
    """The object as it was sent, JSON."""

    def pod(self) -> Pod:
        """The object as a pod. Raises `Malformed` with the path at fault."""
        return decoded(_decode_pod, self.raw_object, "object")


class _Status(Struct, frozen=True):
    code: int
    message: str
    reason: str


class _Response(Struct, frozen=True, rename="camel", omit_defaults=True):
    uid: str = ""
    # Without a default, so that it is always written.
    allowed: bool = field(default_factory=bool)
    status: _Status | None = None
    patch: str | None = None
    patch_type: str | None = None
    warnings: Sequence[str] | None = None


class _Answer(Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    response: _Response


_REASONS = {400: "BadRequest", 403: "Forbidden", 422: "Invalid", 500: "InternalError", 503: "ServiceUnavailable"}

_decode_review = msgspec.json.Decoder(_Review).decode
_decode_pod = msgspec.json.Decoder(Pod).decode


def decode_review(body: bytes) -> Review:
    """The request of an AdmissionReview. Raises `Malformed`."""
    review = decoded(_decode_review, body, "$")
    if review.api_version not in API_VERSIONS:
        raise Malformed("$.apiVersion", review.api_version, " or ".join(API_VERSIONS))
    request = review.request
    if request is None or not request.uid:
        raise Malformed("$.request.uid", "", "the uid of an admission request")
    return Review(
        uid=request.uid,
        api_version=review.api_version,
        kind=request.kind.kind,
        sub_resource=request.sub_resource,
        operation=request.operation,
        namespace=request.namespace,
        username=request.user_info.username,
        raw_object=bytes(request.object),
    )


def encode_allow(review: Review, patch: Sequence[PatchOp] = (), warnings: Sequence[str] = ()) -> bytes:
    """Allowed, with the changes and warnings for who asked."""
    coded = base64.b64encode(msgspec.json.encode(patch)).decode() if patch else None
    response = _Response(
        uid=review.uid,
        allowed=True,
        patch=coded,
        patch_type="JSONPatch" if coded else None,
        warnings=_warnings(review, warnings),
    )
    return _encode(review.api_version, response)


def encode_deny(review: Review | None, code: int, message: str, warnings: Sequence[str] = ()) -> bytes:
    """Refused. Without a review (its bytes could not be read) the answer carries no uid."""
    response = _Response(
        uid=review.uid if review else "",
        allowed=False,
        status=_Status(code, message, _REASONS.get(code, "Forbidden")),
        warnings=_warnings(review, warnings),
    )
    return _encode(review.api_version if review else API_VERSIONS[0], response)


def pointer(*steps: str | int) -> str:
    """A JSON Pointer (RFC 6901): ``/metadata/annotations/hami.io~1vgpu-node``."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _encode(api_version: str, response: _Response) -> bytes:
    return msgspec.json.encode(_Answer(api_version, "AdmissionReview", response))


def _warnings(review: Review | None, warnings: Sequence[str]) -> list[str] | None:
    return list(dict.fromkeys(warnings)) or None
