"""The server's certificate, reloaded when its files change, and who a client proves to be.

Client certificates are asked for, not required: webhook and health need none,
and the extender routes look at the name that was proven.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

RELOAD_EVERY = 5.0
"""Seconds between looks at the files; kubelet swaps a mounted secret by a link, within a minute."""

Signature = tuple[tuple[int, int, int], ...]


class Certificate:
    """A live server context whose certificate follows its files."""

    def __init__(self, cert_file: str, key_file: str, client_ca: str | None = None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._client_ca = client_ca
        self.context = server_context(cert_file, key_file, client_ca)
        self._seen = self._signature()

    def reload(self) -> bool:
        """Take the files' present content if it changed and is sound. Returns whether it was taken.

        A pair that does not load (half written, key of another certificate) leaves the old one in use.
        """
        signature = self._signature()
        if signature == self._seen:
            return False
        try:
            server_context(self._cert_file, self._key_file, self._client_ca)  # a trial: the live one must not break
            self.context.load_cert_chain(self._cert_file, self._key_file)
            if self._client_ca:
                self.context.load_verify_locations(self._client_ca)
        except (OSError, ssl.SSLError) as fault:
            log.warning(
                "certificate %s has changed but cannot be used, keeping the old one: %s", self._cert_file, fault
            )
            return False
        self._seen = signature
        log.info("certificate %s reloaded", self._cert_file)
        return True

    async def follow(self) -> None:
        """Reload for ever."""
        while True:
            await asyncio.sleep(RELOAD_EVERY)
            self.reload()

    def _signature(self) -> Signature:
        files = [file for file in (self._cert_file, self._key_file, self._client_ca) if file]
        return tuple(signature(Path(file)) for file in files)


def signature(file: Path) -> tuple[int, int, int]:
    """What changes when a file does; zeros for one that is not there now."""
    try:
        status = file.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def server_context(cert_file: str, key_file: str, client_ca: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later. Raises OSError or SSLError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # Go's clients keep none unless told to, and making two costs a third of a handshake
    context.load_cert_chain(cert_file, key_file)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def names_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Common name, DNS and URI names of a verified client certificate, as `ssl` gives it."""
    if not certificate:
        return frozenset()
    common: Iterable[str] = (
        value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
    )
    alternative = (value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI"))
    return frozenset((*common, *alternative))
