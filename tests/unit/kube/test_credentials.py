"""Tokens that rotate, plugins that print them, certificates renewed in place."""

import stat
from pathlib import Path

import pytest
import trustme
from lightkube.config.models import Cluster, NameValue, User, UserExec

from hami.kube.config import Target, ssl_context
from hami.kube.credentials import CertificateFiles, Plugin, TokenFile, credentials_of
from hami.model.errors import Malformed, Unavailable


def target(user: User, folder: Path | None = None) -> Target:
    return Target("https://x", "default", user, Cluster("https://x"), folder)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


async def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "token"
    file.write_text("one\n")
    token = TokenFile(file, clock=lambda: now[0])
    assert await token.header() == "Bearer one"
    file.write_text("two\n")
    assert await token.header() == "Bearer one"
    now[0] = 60.0
    assert await token.header() == "Bearer two"


async def test_after_a_401_a_new_token_is_worth_a_try_and_the_old_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    token = TokenFile(file)
    await token.header()
    assert not await token.refresh()
    file.write_text("two")
    assert await token.refresh()
    assert await token.header() == "Bearer two"


async def test_a_token_file_that_vanishes_for_a_moment_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = TokenFile(file)
    with pytest.raises(Unavailable, match="token"):
        await token.header()
    file.write_text("one")
    await token.header()
    file.unlink()
    assert not await token.refresh()
    assert await token.header() == "Bearer one"


async def test_a_plugin_is_asked_once_and_again_when_its_token_runs_out(tmp_path: Path) -> None:
    now = [0.0]
    text = 'echo run >> "$COUNT"; echo \'{"status":{"token":"t","expirationTimestamp":"1970-01-01T00:10:00Z"}}\''
    command = script(tmp_path / "plugin", text)
    env = [NameValue("COUNT", str(tmp_path / "count"))]
    plugin = Plugin(UserExec("client.authentication.k8s.io/v1", command, env), now=lambda: now[0])
    assert await plugin.header() == "Bearer t"
    await plugin.header()
    assert (tmp_path / "count").read_text() == "run\n"
    now[0] = 595.0
    await plugin.header()
    assert (tmp_path / "count").read_text() == "run\nrun\n"
    assert await plugin.refresh()


async def test_a_plugin_is_told_its_version_and_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    text = 'printf %s "$KUBERNETES_EXEC_INFO" > "$1"; echo \'{"status":{"token":"t"}}\''
    script(tmp_path / "plugin", text)
    version = "client.authentication.k8s.io/v1"
    plugin = Plugin(UserExec(version, "./plugin", None, [str(tmp_path / "told")]), tmp_path)
    assert await plugin.header() == "Bearer t"
    assert version in (tmp_path / "told").read_text()


async def test_a_failing_plugin_says_what_it_said(tmp_path: Path) -> None:
    plugin = Plugin(UserExec("v1", script(tmp_path / "plugin", "echo no login >&2; exit 3")))
    with pytest.raises(Unavailable, match="ended with 3: no login"):
        await plugin.header()
    plugin = Plugin(UserExec("v1", script(tmp_path / "other", "echo '{secret'")))
    with pytest.raises(Malformed) as raised:
        await plugin.header()
    assert "secret" not in str(raised.value)


async def test_a_plugin_that_is_not_installed_is_named_with_the_hint() -> None:
    plugin = Plugin(UserExec("v1", "no-such-plugin-here", installHint="get it from the provider"))
    with pytest.raises(Unavailable, match=r"no-such-plugin-here.*get it from the provider"):
        await plugin.header()


async def test_renewed_certificate_files_are_taken_up(tmp_path: Path) -> None:
    now = [0.0]
    authority = trustme.CA()

    def issue() -> None:
        leaf = authority.issue_cert("me@example.com")
        leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "crt"))
        leaf.private_key_pem.write_to_path(str(tmp_path / "key"))

    issue()
    user = User(client_cert="crt", client_key="key")
    chosen = target(user, tmp_path)
    context = ssl_context(chosen)
    assert context is not None
    files = CertificateFiles(chosen, context, clock=lambda: now[0])
    assert await files.header() is None
    assert not await files.refresh()
    (tmp_path / "key").write_text("half written")
    assert not await files.refresh()
    issue()
    assert await files.refresh()


async def test_the_kubeconfigs_ways_in_their_order() -> None:
    assert await credentials_of(target(User(token="t")), None).header() == "Bearer t"
    basic = credentials_of(target(User(username="u", password="p")), None)
    assert await basic.header() == "Basic dTpw"
    assert await credentials_of(target(User()), None).header() is None
    with pytest.raises(Malformed, match="exec plugin"):
        credentials_of(target(User(auth_provider={"name": "gcp"})), None)
