"""Manifests as YAML for people: comments where one wonders, keys in their usual order."""

from collections.abc import Iterable

import yaml

from hami.scheduler.manifests import extender
from hami.scheduler.manifests.site import Manifest

_COMMENTS = {
    "KubeSchedulerConfiguration": extender.COMMENT,
    "MutatingWebhookConfiguration": "Refuses GPU pods while it cannot be reached; other pods never wait for it.",
    "ValidatingAdmissionPolicy": "Judged by the API server itself, also while no HAMi program runs.",
}


def to_yaml(manifests: Iterable[Manifest]) -> str:
    """One document each."""
    return "".join(_document(manifest) for manifest in manifests)


def _document(manifest: Manifest) -> str:
    comment = _COMMENTS.get(manifest["kind"], "")
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return f"---\n{head}{yaml.dump(manifest, Dumper=_Folding, sort_keys=False, width=110)}"


class _Folding(yaml.SafeDumper):
    """Expressions stand as they are read, in a folded block, not in quotes of quotes."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=">" if len(text) > 80 else None)


_Folding.add_representer(str, _text)
