"""A pod as its author wrote it -> the `Ask` that is planned with, through the vendors' descriptions."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef, Policies, Weights
from hami.model.errors import Malformed
from hami.model.ids import Family, PodUid
from hami.model.vendor import ContainerRequest, PodChange, Vendor
from hami.vendors import policies
from hami.vendors.gang import gang_of
from hami.wire import quantity
from hami.wire.objects import Container, Pod

__all__ = [
    "Policies", "ask_of", "completed", "container_kinds", "container_requests", "names_resource", "pod_ref",
    "refuse_too_many",
]  # fmt: skip

_HAMI_DEFAULTS = Policies()

MOST_CONTAINERS = 100
"""Of a pod, init containers too, that ask for cards: among 5,000 nodes a decision about so many takes 0.1 to 0.3 s."""


def ask_of(pod: Pod, vendors: Sequence[Vendor], defaults: Policies = _HAMI_DEFAULTS) -> Ask:
    """What `pod` asks of all vendors; `Ask.empty` where it asks for no card.

    Init containers first, then app containers, each group in spec order, as
    records list them. Raises `Malformed` with path, value and what is allowed.
    """
    annotations = pod.metadata.annotations or {}
    requests = container_requests(pod)
    refuse_too_many(requests, vendors)
    asking = _asking(requests, vendors)
    rules = {vendor.family: vendor.rules(annotations) for vendor in asking}
    containers = tuple(
        ContainerAsk(request.name, kind, _card_asks(request, asking, rules))
        for request, kind in zip(requests, container_kinds(pod), strict=True)
    )
    node_policy = policies.node_policy(annotations, defaults.node)
    return Ask(
        pod=pod_ref(pod),
        containers=containers,
        node_policy=node_policy,
        cpu_milli=cpu_milli(pod) if node_policy is NodePolicy.PACK else 0,
        card_policy=policies.card_policy(annotations, defaults.card),
        weights=policies.weights(annotations) if asking else Weights(),
        priority=pod.spec.priority or 0,
        preempts=pod.spec.preemption_policy != "Never",
        gang=gang_of(pod.metadata) if asking else None,
    )


def pod_ref(pod: Pod) -> PodRef:
    return PodRef(pod.metadata.namespace, pod.metadata.name, PodUid(pod.metadata.uid))


def cpu_milli(pod: Pod) -> int:
    """What the pod requests of its host's CPU, as kube-scheduler counts it; what cannot be read counts as nothing."""
    running = sum(map(_cpu, pod.spec.containers))
    return max([running, *map(_cpu, pod.spec.init_containers or ())])


def _cpu(container: Container) -> int:
    asked = container.resources.requests or container.resources.limits or {}
    try:
        return int(quantity.parse(asked.get("cpu", "0")) * 1000)
    except Malformed:
        return 0


def names_resource(pod: Pod, vendors: Sequence[Vendor]) -> bool:
    """Whether any container names a resource of any vendor, whatever its value."""
    return bool(_asking(container_requests(pod), vendors))


def container_requests(pod: Pod) -> tuple[ContainerRequest, ...]:
    """All containers in record order, quantities as text."""
    inits = [_request(one, f"spec.initContainers[{i}]") for i, one in enumerate(pod.spec.init_containers or ())]
    apps = [_request(one, f"spec.containers[{i}]") for i, one in enumerate(pod.spec.containers)]
    return tuple(inits + apps)


def refuse_too_many(requests: Sequence[ContainerRequest], vendors: Sequence[Vendor]) -> None:
    """A pod of thousands of containers that ask for cards would hold up everybody's decisions. Raises `Malformed`."""
    if len(requests) <= MOST_CONTAINERS:
        return
    resources = frozenset().union(*(vendor.resources for vendor in vendors))
    asking = sum(not resources.isdisjoint((*one.limits, *one.requests)) for one in requests)
    if asking > MOST_CONTAINERS:
        allowed = f"at most {MOST_CONTAINERS}, init containers too"
        raise Malformed("spec.containers", f"{asking} that ask for cards", allowed)


def completed(pod: Pod, changes: Sequence[PodChange]) -> Pod:
    """The pod as it will be with what the vendors add to its limits; for asks before the API server has them."""
    inits, apps = pod.spec.init_containers or [], pod.spec.containers
    limits: list[dict[str, str]] = [{} for _ in (*inits, *apps)]
    for change in changes:
        for added, container in zip(limits, change.containers, strict=True):
            added.update(container.limits)
    whole = [_with_limits(one, added) for one, added in zip((*inits, *apps), limits, strict=True)]
    containers = {"init_containers": whole[: len(inits)], "containers": whole[len(inits) :]}
    return replace(pod, spec=replace(pod.spec, **containers))


def _with_limits(container: Container, added: Mapping[str, str]) -> Container:
    resources = container.resources
    return replace(container, resources=replace(resources, limits={**(resources.limits or {}), **added}))


def container_kinds(pod: Pod) -> tuple[ContainerKind, ...]:
    """How each container runs, in record order."""
    inits = [
        ContainerKind.SIDECAR if one.restart_policy == "Always" else ContainerKind.INIT
        for one in pod.spec.init_containers or ()
    ]
    return (*inits, *(ContainerKind.APP for _ in pod.spec.containers))


def _asking(requests: Sequence[ContainerRequest], vendors: Sequence[Vendor]) -> tuple[Vendor, ...]:
    named = {name for request in requests for name in (*request.limits, *request.requests)}
    return tuple(vendor for vendor in vendors if not named.isdisjoint(vendor.resources))


def _card_asks(
    request: ContainerRequest, vendors: Sequence[Vendor], rules: Mapping[Family, CardRules]
) -> tuple[CardAsk, ...]:
    asks = (vendor.card_ask(request, rules[vendor.family]) for vendor in vendors)
    return tuple(ask for ask in asks if ask is not None)


def _request(container: Container, path: str) -> ContainerRequest:
    return ContainerRequest(
        name=container.name,
        path=path,
        limits=_texts(container.resources.limits),
        requests=_texts(container.resources.requests),
        env={var.name: None if var.value_from else var.value or "" for var in container.env or ()},
    )


def _texts(quantities: Mapping[str, str | int | float] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (quantities or {}).items()}
