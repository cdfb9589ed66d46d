"""What can go wrong with a call to the API server, in one family.

    ApiError                    the server answered, and said no
    |- BadRequest        400
    |- Unauthorized      401    who are you: credentials were refreshed once and still failed
    |- Forbidden         403    RBAC or an admission plugin
    |- NotFound          404
    |- Conflicted        409    also a `Conflict`: read again, then write again
    |  `- AlreadyExists
    |- Gone              410    the resourceVersion is older than the server's history: list again
    |- TooLarge          413
    |- Invalid           422    the object breaks a rule of its type
    |- TooMany           429    also `Unavailable`; `retry_after` says when
    `- ServerFault       5xx    also `Unavailable`
    Unreachable                 no connection: the request was certainly not carried out
    Unanswered                  sent, no answer: the request may have been carried out

Bodies come from anywhere (proxies, webhooks), so what of them stands in a message is cut.
"""

from http import HTTPStatus

import msgspec
from msgspec import Struct

from hami.model.errors import Conflict, HamiError, Retry, Unavailable

MESSAGE_LIMIT = 512
"""Enough for the API server's own sentences; a proxy's HTML page is of no use to a reader."""


class Status(Struct, frozen=True):
    """The part of a `metav1.Status` that is read."""

    code: int = 0
    reason: str = ""
    message: str = ""


class ApiError(HamiError):
    """The server's own refusal. `status` is the HTTP code, `reason` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds the server asked to wait; None where it did not say."""
        super().__init__(f"API server: {status} {reason}: {message}")


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    retry = Retry.LATER  # a credential may be rotated under us


class Forbidden(ApiError):
    retry = Retry.LATER  # roles arrive after the pod that needs them


class NotFound(ApiError):
    pass


class Conflicted(ApiError, Conflict):
    retry = Retry.SOON


class AlreadyExists(Conflicted):
    retry = Retry.NEVER


class Gone(ApiError):
    retry = Retry.SOON


class TooLarge(ApiError):
    pass


class Invalid(ApiError):
    pass


class TooMany(ApiError, Unavailable):
    retry = Retry.LATER


class ServerFault(ApiError, Unavailable):
    retry = Retry.LATER


class Unreachable(Unavailable):
    """No connection to the server. The request was not carried out."""

    retry = Retry.SOON


class Unanswered(Unavailable):
    """The connection broke, or time ran out, after the request was sent. Its fate is unknown."""

    retry = Retry.SOON


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflicted,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    429: TooMany,
}
_BY_REASON: dict[str, type[ApiError]] = {"AlreadyExists": AlreadyExists, "Expired": Gone}
_status = msgspec.json.Decoder(Status)


def from_status(status: Status, code: int, retry_after: float | None = None) -> ApiError:
    """The error for a decoded Status; `code` is used where the status names none."""
    code = status.code or code
    kind = _BY_REASON.get(status.reason) or _BY_STATUS.get(code) or (ServerFault if code >= 500 else ApiError)
    return kind(code, status.reason or _phrase(code), cut(status.message), retry_after)


def from_response(code: int, body: bytes, retry_after: float | None = None) -> ApiError:
    """The error for an HTTP answer; a body that is no Status becomes the message, cut."""
    try:
        status = _status.decode(body)
    except msgspec.MsgspecError:
        status = Status()
    if not (status.reason or status.message):
        status = Status(code, _phrase(code), body[: MESSAGE_LIMIT * 4].decode("utf-8", "replace").strip())
    return from_status(status, code, retry_after)


def cut(text: str) -> str:
    """A message at the length that stays readable in a log line or an event."""
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase.replace(" ", "")
    except ValueError:
        return "Unknown"
