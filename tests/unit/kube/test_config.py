"""Kubeconfig files, the service account, and what stands in an error."""

import base64
import ssl
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
import yaml

from hami.kube.config import from_files, load, ssl_context
from hami.model.errors import Malformed


def write(path: Path, name: str = "one", server: str = "https://one:6443/", **cluster: Any) -> Path:
    config = {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
        "users": [{"name": name, "user": {"token": f"token-{name}"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_kubeconfig_gives_server_namespace_and_user(tmp_path: Path) -> None:
    target = load(str(write(tmp_path / "config")), env={})
    assert (target.server, target.namespace, target.user.token) == ("https://one:6443", "ns-one", "token-one")


def test_several_files_are_one_configuration_and_the_first_wins(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two", "two", "https://two")
    env = {"KUBECONFIG": f"{tmp_path / 'missing'}:{one}:{two}"}
    assert load(env=env).server == "https://one:6443"
    assert load(context="two", env=env).server == "https://two"


def test_relative_files_are_beside_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one = write(tmp_path / "one")
    two = write(tmp_path / "sub" / "two", "two", **{"certificate-authority": "ca.crt"})
    target = from_files([one, two], "two")
    assert target.file("ca.crt") == tmp_path / "sub" / "ca.crt"


def test_fields_beyond_lightkubes_are_kept(tmp_path: Path) -> None:
    target = from_files([write(tmp_path / "c", **{"tls-server-name": "kube", "proxy-url": "http://p:1"})])
    assert (target.tls_server_name, target.proxy) == ("kube", "http://p:1")


def test_a_pod_uses_its_service_account_and_keeps_the_tokens_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("hami-system\n")
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    target = load(env=env, service_account=tmp_path)
    assert (target.server, target.namespace) == ("https://[fd00::1]:443", "hami-system")
    assert target.user.token_file == str(tmp_path / "token")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "line 1, column 2: "),
        ("[]", "must be a mapping"),
        ("clusters: [{name: a, cluster: {server: 7}}]\ncontexts: []\n", "server"),
        ("clusters: []\ncontexts: [{name: a, context: {cluster: b}}]\ncurrent-context: a", "'b'"),
        ("clusters: []\ncontexts: []\ncurrent-context: a", "contexts there: none"),
        ("clusters: []\ncontexts: []", "current-context"),
        ("clusters: 5", "clusters: 5 is not usable: a list of entries, each with a name"),
        ("users: [a]", "users: \\['a'\\] is not usable"),
        ("contexts: [{name: []}]", "contexts: .* each with a name"),
        ("[" * 5000, "nested too deeply"),
        ("current-context: 2020-13-45", "line 1, column 18: .*month must be"),
        ("a: 1\na: 2\n", "line 2, column 1: the key 'a' stands twice, first in line 1: leave one of the two out"),
    ],
)
def test_a_broken_kubeconfig_is_named_with_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(Malformed, match=complaint) as raised:
        load(str(tmp_path / "bad"), env={})
    assert str(tmp_path / "bad") in str(raised.value)


def test_a_missing_kubeconfig_says_so(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="No such file"):
        load(str(tmp_path / "none"), env={})


def test_nothing_at_all_names_all_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Malformed, match="KUBECONFIG"):
        load(env={}, service_account=tmp_path / "none")


def test_tls_trusts_the_clusters_authority_and_carries_the_users_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("me@example.com")
    encoded = {
        "client-certificate-data": base64.b64encode(leaf.cert_chain_pems[0].bytes()).decode(),
        "client-key-data": base64.b64encode(leaf.private_key_pem.bytes()).decode(),
    }
    config = {
        "current-context": "x",
        "clusters": [
            {
                "name": "x",
                "cluster": {
                    "server": "https://x",
                    "certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode(),
                },
            }
        ],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": encoded}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    context = ssl_context(from_files([tmp_path / "config"]))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    encoded["client-key-data"] = base64.b64encode(b"no key").decode()
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    with pytest.raises(Malformed, match="client-certificate-data"):
        ssl_context(from_files([tmp_path / "config"]))


def test_tls_is_not_checked_only_when_the_kubeconfig_says_so(tmp_path: Path) -> None:
    context = ssl_context(
        from_files([write(tmp_path / "c", **cast("dict[str, Any]", {"insecure-skip-tls-verify": True}))])
    )
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert ssl_context(from_files([write(tmp_path / "d", server="http://plain:8080")])) is None


def test_an_unusable_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="certificate-authority"):
        ssl_context(from_files([write(tmp_path / "c", **{"certificate-authority": "missing.crt"})]))
    with pytest.raises(Malformed, match="base64"):
        ssl_context(from_files([write(tmp_path / "c", **{"certificate-authority-data": "%%%"})]))
