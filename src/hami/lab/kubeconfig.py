"""Writes kubeconfig files; keys are inside, so that one file can be copied elsewhere."""

import base64
from pathlib import Path

import yaml

from hami.lab.pki import KeyPair


def write(path: Path, server: str, pair: KeyPair, *, user: str, cluster: str = "hami-lab") -> Path:
    """A kubeconfig with one cluster, one user and one context."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _embedded(pair.authority)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _embedded(pair.certificate),
                    "client-key-data": _embedded(pair.key),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
