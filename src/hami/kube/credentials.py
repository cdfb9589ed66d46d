"""Proof of who we are, kept fresh: what goes into the Authorization header.

Every kind has the same two calls: `header` before a request, `refresh` after
a 401. Times come from a monotonic clock that is passed in.
"""

import asyncio
import base64
import os
import ssl
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
from lightkube.config.models import UserExec
from msgspec import Struct

from hami.kube.config import Target, load_client_certificate, load_inline_certificate
from hami.model.errors import Malformed, Unavailable

REREAD_S = 60.0
"""As client-go: kubelet renews a token at 80 % of its life, which is at least ten minutes."""
PLUGIN_TIMEOUT_S = 60.0


class Credentials(Protocol):
    async def header(self) -> str | None:
        """The Authorization header's value, or None when the connection's certificate is the proof."""

    async def refresh(self) -> bool:
        """After a 401: get new proof. False when there is nothing new to try."""


class Fixed:
    """A token or password written in the kubeconfig, or nothing."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    async def header(self) -> str | None:
        return self._value

    async def refresh(self) -> bool:
        return False


class TokenFile:
    """A token in a file that somebody rotates: kubelet, or an operator's tool."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token: str | None = None
        self._read_at = 0.0

    async def header(self) -> str | None:
        if self._token is None or self._clock() - self._read_at >= REREAD_S:
            self._read()
        return f"Bearer {self._token}"

    async def refresh(self) -> bool:
        before = self._token
        self._read()
        return self._token != before

    def _read(self) -> None:
        try:
            token = self._path.read_text().strip()
        except OSError as fault:
            # A rotation may be half way. An old token is better than none; without one nothing works.
            if self._token is None:
                raise Unavailable(f"token file {self._path}: {fault.strerror}") from fault
            return
        self._token, self._read_at = token or self._token, self._clock()


class CertificateFiles:
    """Client certificate files that are renewed in place; new connections get the new one."""

    def __init__(self, target: Target, context: ssl.SSLContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._context = context
        self._clock = clock
        self._looked_at = clock()
        self._seen = self._stamp()

    async def header(self) -> str | None:
        if self._clock() - self._looked_at >= REREAD_S:
            await self.refresh()
        return None

    async def refresh(self) -> bool:
        self._looked_at = self._clock()
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        try:
            load_client_certificate(self._context, self._target)
        except Malformed:
            return False  # half written: the next look finds it whole
        self._seen = stamp
        return True

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        user = self._target.user
        files = [self._target.file(name) for name in (user.client_cert, user.client_key) if name]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (file.stat() for file in files if file.exists()))


class PluginStatus(Struct, frozen=True, rename="camel"):
    token: str | None = None
    expiration_timestamp: datetime | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class PluginAnswer(Struct, frozen=True):
    """An ``ExecCredential`` as a plugin prints it."""

    status: PluginStatus = PluginStatus()


class Plugin:
    """A program of the cluster's provider that prints a credential (kubeconfig ``exec``)."""

    def __init__(
        self,
        plugin: UserExec,
        folder: Path | None = None,
        context: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._plugin = plugin
        self._folder = folder
        self._context = context
        self._now = now
        self._status: PluginStatus | None = None
        self._one = asyncio.Lock()

    async def header(self) -> str | None:
        async with self._one:  # many requests at once must not start many programs
            if self._status is None or self._expired(self._status):
                await self._ask()
        return f"Bearer {self._status.token}" if self._status and self._status.token else None

    async def refresh(self) -> bool:
        async with self._one:
            await self._ask()
        return True

    def _expired(self, status: PluginStatus) -> bool:
        expires = status.expiration_timestamp
        return expires is not None and self._now() >= expires.timestamp() - 10.0

    async def _ask(self) -> None:
        output = await self._run()
        try:
            status = msgspec.json.decode(output, type=PluginAnswer).status
        except msgspec.MsgspecError as fault:
            raise Malformed(f"output of {self._plugin.command}", "(hidden)", f"an ExecCredential: {fault}") from fault
        if status.client_certificate_data and status.client_key_data and self._context:
            certificate, key = status.client_certificate_data.encode(), status.client_key_data.encode()
            load_inline_certificate(self._context, certificate, key)
        self._status = status

    async def _run(self) -> bytes:
        plugin = self._plugin
        command = plugin.command
        if "/" in command and self._folder is not None:
            command = str(self._folder / command)
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                *(plugin.args or []),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as fault:
            hint = f"; {plugin.installHint}" if plugin.installHint else ""
            raise Unavailable(f"credential plugin {command}: {fault.strerror}{hint}") from fault
        try:
            async with asyncio.timeout(PLUGIN_TIMEOUT_S):
                output, complaint = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Unavailable(f"credential plugin {command}: no answer in {PLUGIN_TIMEOUT_S:.0f} s") from None
        if process.returncode:
            said = complaint.decode("utf-8", "replace").strip()[:512]
            raise Unavailable(f"credential plugin {command} ended with {process.returncode}: {said}")
        return output

    def _environment(self) -> dict[str, str]:
        request = {
            "apiVersion": self._plugin.apiVersion,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        given = {variable.name: variable.value for variable in self._plugin.env or []}
        return {**os.environ, **given, "KUBERNETES_EXEC_INFO": msgspec.json.encode(request).decode()}


def credentials_of(target: Target, context: ssl.SSLContext | None) -> Credentials:
    """The user's way to prove himself; the order is client-go's."""
    user = target.user
    if user.token_file:
        return TokenFile(target.file(user.token_file))
    if user.token:
        return Fixed(f"Bearer {user.token}")
    if user.exec:
        return Plugin(user.exec, target.folder, context)
    if user.username is not None and user.password is not None:
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        return Fixed(f"Basic {pair}")
    if user.auth_provider:
        raise Malformed(
            "kubeconfig users[].user.auth-provider", "(set)", "removed from Kubernetes in 1.26: use an exec plugin"
        )
    if context is not None and user.client_cert and user.client_key:
        return CertificateFiles(target, context)
    return Fixed(None)
