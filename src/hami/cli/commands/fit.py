"""`hami fit --gpu 2 --gpumem 10000 --gpucores 40`: whether a pod that nobody has made yet would fit now, and where."""

from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hami.cli.look.source import Source, options

if TYPE_CHECKING:
    from hami.scheduler.api.answers import Explained

_TEMPLATE = ("spec", "template")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"), _TEMPLATE),
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
}
"""What makes pods, and where the pod stands in it."""
STDIN = Path("/dev/stdin")
LONGEST = 1024
"""Characters of a variable or an annotation: none that counts is longer, but for lists of cards."""


@click.command()
@click.option("--gpu", type=click.IntRange(1, 1024), help="Cards a container.  [default: 1 where anything is asked]")
@click.option("--gpumem", metavar="MIB", help="Memory a card, in MiB.")
@click.option("--gpumem-percentage", type=click.IntRange(1, 100), help="Memory a card, in percent of it.")
@click.option("--gpucores", type=click.IntRange(0, 100), help="Percent of a card's time.")
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Any other resource, as in a pod's limits."
)
@click.option("--type", "types", multiple=True, metavar="MODEL", help="Only cards whose model contains this.")
@click.option("--not-type", "not_types", multiple=True, metavar="MODEL", help="No card whose model contains this.")
@click.option("--uuid", "uuids", multiple=True, help="Only this card.")
@click.option("--numa-bind", is_flag=True, help="All cards on one NUMA node.")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Any other annotation of the pod."
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Whose quota counts.")
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A manifest (YAML or JSON) of a Pod, or of a Deployment, Job ..., in place of all of the above; - is stdin.",
)
@click.option("--nodes", type=click.IntRange(1, 64), default=8, show_default=True, help="Nodes shown card by card.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@options()
def command(source: Source, file: Path | None, namespace: str, nodes: int, output: str, **asked_for: Any) -> None:
    """Would it fit? Nothing is made or reserved.

    \b
    hami fit --gpu 2 --gpumem 10000 --gpucores 40
    hami fit --gpumem 24000 --type L40S -o json
    hami fit -f pod.yaml --snapshot cluster.json

    Exit status: 0 it fits now, 1 it does not, 2 wrong use (also a namespace that the cluster does not have), 3
    something needed does not answer.
    """
    from hami.cli.commands.explain import finish

    question = _question(source, file, namespace, asked_for)
    finish(_answer(source, question, nodes), output)


def _question(source: Source, file: Path | None, namespace: str, asked_for: dict[str, Any]) -> dict[str, Any]:
    """The body of /api/v1/fit."""
    if file is not None:
        if any(value not in (None, (), False) for value in asked_for.values()):
            raise click.UsageError("-f says what is asked: no --gpu, --type and so on beside it")
        lists = {key for vendor in source.vendors() for key in vendor.annotations}
        return {"pod": _lean(_manifest(file, namespace), lists)}
    limits = dict(_pair(text, "--limit") for text in asked_for["limits"])
    for option, name in (
        ("gpu", "gpu"),
        ("gpumem", "gpumem"),
        ("gpumem_percentage", "gpumem-percentage"),
        ("gpucores", "gpucores"),
    ):
        if asked_for[option] is not None:
            limits[name] = str(asked_for[option])
    if not limits:
        raise click.UsageError("say what it asks: --gpu 1 --gpumem 8000 --gpucores 30, or -f pod.yaml (see --help)")
    return {"limits": limits, "annotations": _annotations(asked_for), "namespace": namespace}


def _manifest(file: Path, namespace: str) -> dict[str, Any]:
    """The pod of a manifest, or the one that a Deployment, Job, CronJob and so on would make."""
    from hami.config.files import text
    from hami.config.yamls import Unusable, document

    name = "standard input" if str(file) == "-" else str(file)
    found = document(text(STDIN if str(file) == "-" else file), name)
    kind = found.get("kind") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(kind, str) or kind not in TEMPLATES:
        said = f"its kind is {kind}" if kind else "it has no kind"
        raise Unusable(f"{name} makes no pods: {said}; {', '.join(TEMPLATES)} do")
    pod: Any = found
    for key in TEMPLATES[kind]:
        pod = pod.get(key) if isinstance(pod, dict) else None
    if not isinstance(pod, dict):
        raise Unusable(f"{name} has nothing at {'.'.join(TEMPLATES[kind])}: there the pod would stand")
    told = {key: pod[key] for key in ("metadata", "spec") if key in pod}
    given, own = found.get("metadata") or {}, told.get("metadata") or {}
    if isinstance(given, dict) and isinstance(own, dict):
        told["metadata"] = {**own, "namespace": own.get("namespace") or given.get("namespace") or namespace}
    return told


def _lean(pod: dict[str, Any], whole: Container[str]) -> dict[str, Any]:
    """Only what may count: the scheduler takes no large bodies, and manifests carry scripts, certificates and what
    kubectl applied last. Annotations of the keys `whole` are not cut: they may name a hundred cards. Raises
    `Malformed`."""
    import msgspec

    from hami.wire.faults import decoded
    from hami.wire.objects import Pod

    read = decoded(msgspec.json.Decoder(Pod).decode, msgspec.json.encode(pod), "$.pod")
    lean: dict[str, Any] = msgspec.to_builtins(read)
    containers = [*lean["spec"]["containers"], *(lean["spec"]["initContainers"] or ())]
    for one in (variable for container in containers for variable in container["env"] or ()):
        one["value"] = (one["value"] or "")[:LONGEST]
    notes = lean["metadata"]["annotations"] or {}
    lean["metadata"]["annotations"] = {key: value if key in whole else value[:LONGEST] for key, value in notes.items()}
    return lean


def _annotations(asked_for: dict[str, Any]) -> dict[str, str]:
    from hami.vendors.nvidia import rules

    found = dict(_pair(text, "--annotation") for text in asked_for["annotations"])
    lists = ((rules.USE_TYPE, "types"), (rules.NOUSE_TYPE, "not_types"), (rules.USE_UUID, "uuids"))
    found |= {key: ",".join(asked_for[option]) for key, option in lists if asked_for[option]}
    return found | ({rules.NUMA_BIND: "true"} if asked_for["numa_bind"] else {})


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(f"{option} {text!r}: NAME=VALUE, please")
    return key, value


def _answer(source: Source, question: dict[str, Any], nodes: int) -> "Explained":
    from hami.cli.look.source import asked, require_namespace
    from hami.scheduler.api.answers import Explained

    if source.snapshot is None:
        found = asked(source, "POST", f"/api/v1/fit?nodes={nodes}", Explained, question)
        require_namespace(source, _namespace(question))
        return found
    return _from_file(source, question, nodes)


def _namespace(question: dict[str, Any]) -> str:
    pod = question.get("pod")
    found: str = pod["metadata"]["namespace"] if pod is not None else question["namespace"]
    return found


def _from_file(source: Source, question: dict[str, Any], nodes: int) -> "Explained":
    import msgspec
    from msgspec.structs import replace

    from hami.ledger.survey import survey
    from hami.plan.steps import finish
    from hami.scheduler.api.answers import whole
    from hami.scheduler.api.desk import Question
    from hami.vendors.trial import trial_ask, trial_notes, trial_pod
    from hami.wire.faults import decoded

    asked = decoded(msgspec.json.Decoder(Question).decode, msgspec.json.encode(question), "$")
    vendors = source.vendors()
    read, filed = source.filed()
    pod = asked.pod or trial_pod(asked.limits, asked.annotations, asked.namespace, vendors)
    ask = trial_ask(pod, vendors, read.policies.policies())
    found = whole(finish(survey(filed.ledger, ask, closely=nodes, ask_of=filed.ask_of)))
    return replace(found, notes=trial_notes(pod, vendors))
