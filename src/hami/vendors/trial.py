"""A pod that nobody has made yet: what it would ask, completed and checked as the webhook would."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from hami.model.ask import Ask, Policies
from hami.model.errors import Malformed
from hami.model.vendor import Vendor
from hami.vendors import gang, policies
from hami.vendors.ask import ask_of, completed, container_requests
from hami.vendors.refused import forged, unholdable
from hami.wire.objects import Container, Metadata, Pod, PodSpec, Quantities

NAME = "would-be"


def trial_pod(
    limits: Mapping[str, str | int | float], annotations: Mapping[str, str], namespace: str, vendors: Sequence[Vendor]
) -> Pod:
    """A pod of one container. A resource may be named in short, ``gpumem``; raises `Malformed` for one nobody knows."""
    return Pod(
        Metadata(name=NAME, namespace=namespace, annotations=dict(annotations)),
        PodSpec([Container("main", Quantities({full(name, vendors): value for name, value in limits.items()}))]),
    )


def trial_ask(pod: Pod, vendors: Sequence[Vendor], policies: Policies) -> Ask:
    """What it would ask. Raises `Malformed` for what the webhook would refuse, and for a pod that asks for no card."""
    pod = replace(pod, metadata=replace(pod.metadata, uid=""))  # it is nobody's: no hold and no record counts for it
    why = forged(pod) or unholdable(pod)
    if why is not None:
        raise Malformed("pod", why, "what the webhook lets in")
    annotations = pod.metadata.annotations or {}
    changes = [vendor.complete(container_requests(pod), annotations) for vendor in vendors]
    ask = ask_of(completed(pod, changes), vendors, policies)
    if ask.empty:
        known = ", ".join(name for vendor in vendors for name in vendor.resources if name)
        raise Malformed("limits", "no card", f"at least one of {known}")
    return ask


def trial_notes(pod: Pod, vendors: Sequence[Vendor]) -> tuple[str, ...]:
    """What the webhook would warn about when such a pod is made."""
    annotations = pod.metadata.annotations or {}
    changes = [vendor.complete(container_requests(pod), annotations) for vendor in vendors]
    said = [warning for change in changes for warning in change.warnings]
    return (*said, *policies.doubts(annotations), *gang.doubts(pod.metadata))


def full(name: str, vendors: Sequence[Vendor]) -> str:
    """The resource of that name, or of that short name in the first vendor that has one."""
    known = [resource for vendor in vendors for resource in vendor.resources if resource]
    if name in known:
        return name
    for resource in known:
        if resource.rpartition("/")[2] == name:
            return resource
    raise Malformed(f"limits[{name}]", name, f"one of {', '.join(known)}, or the part after the slash")
