"""The small parts: certificates, kubeconfig, ports, subnets, images, names of leftovers."""

import json
import ssl
import tarfile
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from hami.lab import images, kubeconfig, net, nodeconfig, ports, sweep
from hami.lab.errors import LabError
from hami.lab.pki import Pki


def test_a_client_certificate_names_user_and_groups(tmp_path: Path) -> None:
    pair = Pki(tmp_path).client("system:node:a", ["system:nodes", "others"])
    subject = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).subject
    assert [one.value for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:a"]
    assert {one.value for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)} == {
        "system:nodes",
        "others",
    }


def test_openssl_takes_the_chain_and_keys_are_private(tmp_path: Path) -> None:
    pair = Pki(tmp_path).server("it", ["localhost", "127.0.0.1"])
    context = ssl.create_default_context(cafile=str(pair.authority))
    context.load_cert_chain(pair.certificate, pair.key)
    assert {path.stat().st_mode & 0o077 for path in (pair.key, pair.certificate)} == {0}


def test_a_kubeconfig_carries_its_keys_inside(tmp_path: Path) -> None:
    pair = Pki(tmp_path).client("me")
    content = yaml.safe_load(kubeconfig.write(tmp_path / "k", "https://h:1", pair, user="me").read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://h:1"
    assert set(content["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_a_port_is_taken_once_until_it_is_given_back() -> None:
    port = ports.take()
    assert ports.mark_name(f"port-{port}") is None
    ports.give_back(port)
    mark = ports.mark_name(f"port-{port}")
    assert mark
    mark.close()


def test_routes_are_read_as_networks(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"
        "eth0 0000C80A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    )
    assert [str(route) for route in net._routes(table)] == ["10.200.0.0/24"]


def test_the_same_files_give_the_same_image(tmp_path: Path) -> None:
    first, second = (
        images.write(tmp_path / name, "a/b:1", {"/etc/x": b"1"}, command=["/x"]).read_bytes() for name in ("1", "2")
    )
    assert first == second


def test_an_image_has_its_name_and_every_layer_it_lists(tmp_path: Path) -> None:
    with tarfile.open(images.write(tmp_path / "i", "a/b:1", {"/etc/x": b"1"}, command=["/x"])) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        entry = index["manifests"][0]
        manifest = json.load(archive.extractfile(blob(entry["digest"])))  # type: ignore[arg-type]
        assert entry["annotations"]["io.containerd.image.name"] == "a/b:1"
        assert blob(manifest["layers"][0]["digest"]) in archive.getnames()


def test_the_tools_image_brings_the_loader_of_its_programs() -> None:
    files = images.programs(["sh"])
    assert any("ld-" in path for path in files)
    with pytest.raises(LabError, match="no-such-tool is not on this machine"):
        images.programs(["no-such-tool"], ["no-such-tool"])


def test_an_override_wins_in_kubelets_configuration(tmp_path: Path) -> None:
    place = nodeconfig.KubeletPlace(tmp_path, "10.0.0.1", 1, 2, "/hami-lab/x/y", Pki(tmp_path).server("k", ["h"]))
    assert (
        nodeconfig.kubelet(place, {"maxPods": 7, "failSwapOn": True}).items()
        >= {"maxPods": 7, "failSwapOn": True}.items()
    )


def test_a_name_that_is_held_is_a_lab_that_lives() -> None:
    held = sweep.alive("0123abcd")
    assert held
    assert sweep.alive("0123abcd") is None
    held.close()
    again = sweep.alive("0123abcd")
    assert again
    again.close()


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
