"""Certificates: reloaded while serving, broken ones never taken, and the names a client proves."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from hami.scheduler.edge.tls import Certificate, names_of


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def write(folder: Path, authority: trustme.CA, name: str = "localhost", age: int = 0) -> trustme.LeafCert:
    leaf = authority.issue_cert(name, common_name=name)
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (folder / "tls.key").write_bytes(leaf.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    for file in folder.iterdir():
        os.utime(file, (1_000_000 + age, 1_000_000 + age))
    return leaf


def certificate(folder: Path) -> Certificate:
    return Certificate(str(folder / "tls.crt"), str(folder / "tls.key"), str(folder / "ca.crt"))


def served(context: ssl.SSLContext, authority: trustme.CA) -> str:
    """Common name that a fresh connection is shown."""
    here, there = socket.socketpair()
    asking = ssl.create_default_context()
    authority.configure_trust(asking)
    asking.check_hostname = False
    server = threading.Thread(target=lambda: context.wrap_socket(there, server_side=True).close())
    server.start()
    with asking.wrap_socket(here) as connection:
        names = names_of(connection.getpeercert())
    server.join()
    there.close()
    return min(names)


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    yield
    import gc

    gc.collect()


def test_a_changed_certificate_is_served_to_new_connections(tmp_path: Path, authority: trustme.CA) -> None:
    write(tmp_path, authority, "old.example")
    held = certificate(tmp_path)
    assert held.reload() is False
    assert served(held.context, authority) == "old.example"
    write(tmp_path, authority, "new.example", age=5)
    assert held.reload() is True
    assert served(held.context, authority) == "new.example"


def test_a_half_written_certificate_leaves_the_old_one_in_use(tmp_path: Path, authority: trustme.CA) -> None:
    write(tmp_path, authority, "old.example")
    held = certificate(tmp_path)
    (tmp_path / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nhalf")
    assert held.reload() is False
    assert served(held.context, authority) == "old.example"


@pytest.mark.parametrize("order", [("tls.key", "tls.crt"), ("tls.crt", "tls.key")])
def test_half_of_a_new_pair_leaves_the_old_pair_in_use_until_both_are_there(
    tmp_path: Path, authority: trustme.CA, order: tuple[str, str]
) -> None:
    write(tmp_path, authority, "old.example")
    held = certificate(tmp_path)
    new = authority.issue_cert("new.example", common_name="new.example")
    halves = {
        "tls.key": new.private_key_pem.bytes(),
        "tls.crt": b"".join(blob.bytes() for blob in new.cert_chain_pems),
    }
    (tmp_path / order[0]).write_bytes(halves[order[0]])
    assert held.reload() is False
    assert served(held.context, authority) == "old.example"
    (tmp_path / order[1]).write_bytes(halves[order[1]])
    assert held.reload() is True
    assert served(held.context, authority) == "new.example"


def test_a_certificate_that_vanishes_for_a_moment_does_no_harm(tmp_path: Path, authority: trustme.CA) -> None:
    write(tmp_path, authority, "old.example")
    held = certificate(tmp_path)
    (tmp_path / "tls.crt").unlink()
    assert held.reload() is False
    write(tmp_path, authority, "new.example", age=5)
    assert held.reload() is True


def test_names_are_the_common_name_and_the_alternative_ones() -> None:
    shown: dict[str, Any] = {
        "subject": ((("organizationName", "system:masters"),), (("commonName", "system:kube-scheduler"),)),
        "subjectAltName": (("DNS", "scheduler.example"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://x/y")),
    }
    assert names_of(shown) == {"system:kube-scheduler", "scheduler.example", "spiffe://x/y"}
    assert names_of(None) == names_of({}) == frozenset()
