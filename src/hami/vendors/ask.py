"""A pod as its author wrote it -> the `Ask` that is planned with, through the vendors' descriptions."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef, Policies
from hami.model.ids import Family, PodUid
from hami.model.vendor import ContainerRequest, Vendor
from hami.wire import annotations as keys
from hami.wire.objects import Container, Pod

__all__ = [
    "CARD_POLICIES",
    "NODE_POLICIES",
    "Policies",
    "ask_of",
    "card_policy",
    "container_kinds",
    "container_requests",
    "names_resource",
    "node_policy",
    "pod_ref",
    "policy_doubts",
]

CARD_POLICIES = ("binpack", "spread", "numa", "mutex", "topology-aware")
NODE_POLICIES = tuple(policy.value for policy in NodePolicy)
_HAMI_DEFAULTS = Policies()
_POD_KEYS = (keys.NODE_POLICY, keys.CARD_POLICY, keys.SCORING_WEIGHTS)


def ask_of(pod: Pod, vendors: Sequence[Vendor], defaults: Policies = _HAMI_DEFAULTS) -> Ask:
    """What `pod` asks of all vendors; `Ask.empty` where it asks for no card.

    Init containers first, then app containers, each group in spec order, as
    records list them. Raises `Malformed` with path, value and what is allowed.
    """
    annotations = pod.metadata.annotations or {}
    requests = container_requests(pod)
    asking = _asking(requests, vendors)
    rules = {vendor.family: vendor.rules(annotations) for vendor in asking}
    containers = tuple(
        ContainerAsk(request.name, kind, _card_asks(request, asking, rules))
        for request, kind in zip(requests, container_kinds(pod), strict=True)
    )
    return Ask(
        pod=pod_ref(pod),
        containers=containers,
        node_policy=node_policy(annotations, defaults.node),
        card_policy=card_policy(annotations, defaults.card),
        priority=pod.spec.priority or 0,
    )


def pod_ref(pod: Pod) -> PodRef:
    return PodRef(pod.metadata.namespace, pod.metadata.name, PodUid(pod.metadata.uid))


def names_resource(pod: Pod, vendors: Sequence[Vendor]) -> bool:
    """Whether any container names a resource of any vendor, whatever its value."""
    return bool(_asking(container_requests(pod), vendors))


def container_requests(pod: Pod) -> tuple[ContainerRequest, ...]:
    """All containers in record order, quantities as text."""
    inits = [_request(one, f"spec.initContainers[{i}]") for i, one in enumerate(pod.spec.init_containers or ())]
    apps = [_request(one, f"spec.containers[{i}]") for i, one in enumerate(pod.spec.containers)]
    return tuple(inits + apps)


def container_kinds(pod: Pod) -> tuple[ContainerKind, ...]:
    """How each container runs, in record order."""
    inits = [
        ContainerKind.SIDECAR if one.restart_policy == "Always" else ContainerKind.INIT
        for one in pod.spec.init_containers or ()
    ]
    return (*inits, *(ContainerKind.APP for _ in pod.spec.containers))


def node_policy(annotations: Mapping[str, str], default: NodePolicy) -> NodePolicy:
    """The pod's node policy; an unknown word counts as none (`policy_doubts` tells its author)."""
    word = annotations.get(keys.NODE_POLICY, "").strip()
    return NodePolicy(word) if word in NODE_POLICIES else default


def card_policy(annotations: Mapping[str, str], default: tuple[str, ...]) -> tuple[str, ...]:
    """The pod's chain of card policies, known words only, each once."""
    known = dict.fromkeys(word for word in keys.words(annotations.get(keys.CARD_POLICY)) if word in CARD_POLICIES)
    return tuple(known) or default


def policy_doubts(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings about policy words and ``hami.io/`` keys that count for nothing."""
    doubts = [
        _ignored(keys.CARD_POLICY, word, CARD_POLICIES)
        for word in keys.words(annotations.get(keys.CARD_POLICY))
        if word not in CARD_POLICIES
    ]
    word = annotations.get(keys.NODE_POLICY, "").strip()
    if word and word not in NODE_POLICIES:
        doubts.append(_ignored(keys.NODE_POLICY, word, NODE_POLICIES))
    if keys.SCORING_WEIGHTS in annotations:
        doubts.append(f"metadata.annotations[{keys.SCORING_WEIGHTS}] is not supported yet: it is ignored")
    return (*doubts, *(_misspelt(key) for key in annotations if _is_misspelt(key)))


def _ignored(key: str, word: str, known: Sequence[str]) -> str:
    return f"metadata.annotations[{key}]: {word[:60]!r} is ignored: known are {', '.join(known)}"


def _is_misspelt(key: str) -> bool:
    return key.startswith("hami.io/") and key not in _POD_KEYS and bool(get_close_matches(key, _POD_KEYS, 1, 0.8))


def _misspelt(key: str) -> str:
    return f"metadata.annotations[{key}] is ignored: did you mean {get_close_matches(key, _POD_KEYS, 1, 0.8)[0]}?"


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
