"""Who asks, and what he may see: the API server's own answers (TokenReview, SubjectAccessReview), kept for a moment.

A token comes as `Authorization: Bearer`, or as `X-Hami-Token` where the API server's service proxy stands between,
which takes the Authorization header away. Where the operator says that the client authority is the cluster's, a client
certificate names its user too, as it does at the API server.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from hami.kube.client import Kube
from hami.model.errors import HamiError, Retry

AUDIENCE = "hami"
"""Tokens made for this audience (`hami` does for people with client certificates) are good for nothing else."""
KEPT_S = 30.0
"""Seconds an answer is believed; a right that is taken away lasts so much longer."""
KEPT = 2000
REVIEWS = 4
"""Reviews on their way at once."""
TOKEN_HEADER = "X-Hami-Token"  # noqa: S105
LONGEST_TOKEN = 16_384

T = TypeVar("T")


class Denied(HamiError):
    """Refused; `status` is 401 for a stranger, 403 for somebody without the right."""

    retry = Retry.LATER

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class User(Struct, frozen=True):
    """Who it is, in the API server's words."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}

    @property
    def key(self) -> tuple[str, tuple[str, ...], str]:
        return self.username, self.groups, repr(sorted(self.extra.items()))


class _TokenStatus(Struct, frozen=True):
    authenticated: bool = False
    user: User = User()


class _TokenReview(Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(Struct, frozen=True):
    allowed: bool = False


class _AccessReview(Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


class Access:
    """Asks the API server with the scheduler's own account (ClusterRole system:auth-delegator or the like)."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._users: dict[str, tuple[float, User | None]] = {}
        self._rights: dict[tuple[object, ...], tuple[float, bool]] = {}
        self._reviews = asyncio.Semaphore(REVIEWS)

    async def user(self, headers: Mapping[str, str]) -> User:
        """Who sent these headers. Raises `Denied` with 401."""
        token = token_in(headers)
        if token is None:
            raise Denied(401, "say who you are: Authorization: Bearer TOKEN, or X-Hami-Token through a proxy")
        key = hashlib.sha256(token.encode()).hexdigest()
        known = _fresh(self._users, key, self._clock())
        if known is None:
            known = (await self._review_token(token),)
            _keep(self._users, key, known[0], self._clock())
        if known[0] is None:
            raise Denied(401, "the API server does not know this token; it may have expired")
        return known[0]

    async def may(self, user: User, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Whether the API server would let `user` do that itself."""
        key = (user.key, verb, resource, namespace, name)
        known = _fresh(self._rights, key, self._clock())
        if known is None:
            attributes = {"verb": verb, "resource": resource, "namespace": namespace, "name": name}
            known = (await self._review_access(user, attributes),)
            _keep(self._rights, key, known[0], self._clock())
        return known[0]

    async def need(self, user: User, verb: str, resource: str, namespace: str = "", name: str = "") -> None:
        """Raises `Denied` with 403 in the API server's words."""
        if not await self.may(user, verb, resource, namespace, name):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            what = f'{resource} "{name}"' if name else resource
            raise Denied(403, f'user "{user.username}" cannot {verb} {what}{where}')

    async def _review_token(self, token: str) -> User | None:
        spec: dict[str, Any] = {"token": token}
        if AUDIENCE in audiences(token):
            spec["audiences"] = [AUDIENCE]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        async with self._reviews:
            review = await self._kube.create("/apis/authentication.k8s.io/v1/tokenreviews", body, _TokenReview)
        return review.status.user if review.status.authenticated else None

    async def _review_access(self, user: User, attributes: dict[str, str]) -> bool:
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "resourceAttributes": attributes,
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        async with self._reviews:
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            return (await self._kube.create(path, body, _AccessReview)).status.allowed


def token_in(headers: Mapping[str, str]) -> str | None:
    """The token, from either header."""
    given = headers.get(TOKEN_HEADER)
    if given is None:
        scheme, _, rest = headers.get("Authorization", "").partition(" ")
        given = rest if scheme.lower() == "bearer" else None
    given = (given or "").strip()
    return given if 0 < len(given) <= LONGEST_TOKEN and given.isascii() else None


def audiences(token: str) -> tuple[str, ...]:
    """What a JWT says it is for, unchecked: only which question to ask depends on it."""
    parts = token.split(".")
    if len(parts) != 3:
        return ()
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, msgspec.MsgspecError):
        return ()
    found = claims.get("aud", ()) if isinstance(claims, dict) else ()
    return (found,) if isinstance(found, str) else tuple(one for one in found if isinstance(one, str))


def certified(certificate: Mapping[str, Any] | None) -> User | None:
    """The user of a verified client certificate, as the API server has it: common name, organizations as groups."""
    if not certificate:
        return None
    parts = [entry for part in certificate.get("subject", ()) for entry in part]
    names = [value for key, value in parts if key == "commonName"]
    if not names:
        return None
    groups = [value for key, value in parts if key == "organizationName"]
    return User(names[0], groups=(*groups, "system:authenticated"))


def _fresh(kept: dict[Any, tuple[float, T]], key: object, now: float) -> tuple[T] | None:
    entry = kept.get(key)
    return (entry[1],) if entry is not None and now < entry[0] else None


def _keep(kept: dict[Any, tuple[float, T]], key: object, value: T, now: float) -> None:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = (now + KEPT_S, value)
