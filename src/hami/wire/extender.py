"""kube-scheduler's extender protocol: the bytes of /filter, /prioritize, /bind and /preempt.

The Go types carry no JSON tags, so keys are capitalised and decoders there take
any case. The exact spelling is tried first, since a filter carries thousands of
names; what does not match is decoded again, case-insensitively.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct, field

from hami.model.errors import Malformed
from hami.wire.faults import decoded
from hami.wire.objects import Metadata, Pod

Args = TypeVar("Args", bound=Struct)

_NULL = Raw(b"null")


class NodeList(Struct, frozen=True):
    """Nodes in full, as an extender that is not ``nodeCacheCapable`` gets them; kept as bytes to be sent back."""

    items: list[Raw] | None = None


class FilterArgs(Struct, frozen=True):
    """Body of /filter and /prioritize."""

    pod: Pod | None = field(name="Pod", default=None)
    nodes: NodeList | None = field(name="Nodes", default=None)
    node_names: Raw = field(name="NodeNames", default=_NULL)

    @property
    def listed(self) -> bytes | None:
        """The JSON list of names as it was sent; None where nodes came in full."""
        listed = bytes(self.node_names)
        return None if listed == bytes(_NULL) else listed

    def names(self) -> list[str]:
        """Names of the nodes asked about, however they were sent."""
        if (listed := self.listed) is not None:
            return decoded(_names.decode, listed, "$.NodeNames")
        if self.nodes is None:
            raise Malformed("NodeNames", None, "node names, or Nodes in full")
        return [_node_name(item, index) for index, item in enumerate(self.nodes.items or ())]


class BindArgs(Struct, frozen=True):
    """Body of /bind."""

    pod_name: str = field(name="PodName", default="")
    pod_namespace: str = field(name="PodNamespace", default="")
    pod_uid: str = field(name="PodUID", default="")
    node: str = field(name="Node", default="")


class HostPriority(Struct, frozen=True):
    """One entry of /prioritize's answer; `score` from 0 to 10."""

    host: str = field(name="Host")
    score: int = field(name="Score")


class MetaPod(Struct, frozen=True):
    uid: str = field(name="UID", default="")


class MetaVictims(Struct, frozen=True):
    """Victims on one node by uid, as kube-scheduler sends them to a ``nodeCacheCapable`` extender."""

    pods: list[MetaPod] | None = field(name="Pods", default=None)
    pdb_violations: int = field(name="NumPDBViolations", default=0)


class Victims(Struct, frozen=True):
    """Victims on one node as whole pods."""

    pods: list[Pod] | None = field(name="Pods", default=None)
    pdb_violations: int = field(name="NumPDBViolations", default=0)


class PreemptArgs(Struct, frozen=True):
    """Body of /preempt: the pod and, a node each, whom kube-scheduler would evict for it."""

    pod: Pod | None = field(name="Pod", default=None)
    node_victims: dict[str, Victims] | None = field(name="NodeNameToVictims", default=None)
    node_meta_victims: dict[str, MetaVictims] | None = field(name="NodeNameToMetaVictims", default=None)

    def victims(self) -> dict[str, MetaVictims]:
        """Victims by uid, whichever of the two forms was sent."""
        if self.node_meta_victims is not None:
            return self.node_meta_victims
        return {node: _by_uid(victims) for node, victims in (self.node_victims or {}).items()}


class _FilterResult(Struct, frozen=True):
    nodes: dict[str, object] | None = field(name="Nodes")
    node_names: Sequence[str] | Raw | None = field(name="NodeNames")
    failed: Mapping[str, str] | Raw | None = field(name="FailedNodes")
    unresolvable: Mapping[str, str] | Raw | None = field(name="FailedAndUnresolvableNodes")
    error: str = field(name="Error")


class _PreemptResult(Struct, frozen=True):
    node_meta_victims: Mapping[str, MetaVictims] = field(name="NodeNameToMetaVictims")


class _Named(Struct, frozen=True):
    metadata: Metadata = Metadata()


_names = msgspec.json.Decoder(list[str])
_filter = msgspec.json.Decoder(FilterArgs)
_bind = msgspec.json.Decoder(BindArgs)
_preempt = msgspec.json.Decoder(PreemptArgs)
_named = msgspec.json.Decoder(_Named)
_any_case = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def decode_filter(body: bytes) -> FilterArgs:
    """Arguments of /filter and /prioritize; `pod` may be None, which the caller refuses by its own words."""
    args = decoded(_filter.decode, body, "$")
    if args.pod is None or (args.listed is None and args.nodes is None):
        args = _decode_any_case(_filter, body)
    return args


def decode_bind(body: bytes) -> BindArgs:
    """Arguments of /bind, all four present. Raises `Malformed`."""
    args = decoded(_bind.decode, body, "$")
    if not (args.pod_name and args.pod_namespace and args.pod_uid and args.node):
        args = _decode_any_case(_bind, body)
    for key, value in zip(BindArgs.__struct_encode_fields__, msgspec.structs.astuple(args), strict=True):
        if not value:
            raise Malformed(f"$.{key}", value, "a name that is not empty")
    return args


def decode_preempt(body: bytes) -> PreemptArgs:
    """Arguments of /preempt."""
    args = decoded(_preempt.decode, body, "$")
    if args.pod is None or (args.node_meta_victims is None and args.node_victims is None):
        args = _decode_any_case(_preempt, body)
    return args


def encode_filter_result(
    args: FilterArgs,
    feasible: Collection[str] | Raw,
    failed: Mapping[str, str] | Raw,
    unresolvable: Mapping[str, str] | Raw | None = None,
) -> bytes:
    """Answer of /filter in the form that was asked for: names for names, nodes for nodes.

    `feasible` may be a JSON list already, where names were sent. `failed` says why a node is out; `unresolvable` are
    nodes that no preemption would help; each may be a JSON object that is not empty.
    """
    names: list[str] | Raw | None = None
    nodes: dict[str, object] | None = None
    if isinstance(feasible, Raw):
        names = feasible
    elif args.listed is not None:
        names = list(feasible)
    else:
        kept = frozenset(feasible)
        items = (args.nodes.items if args.nodes else None) or []
        pairs = zip(args.names(), items, strict=True)
        nodes = {"metadata": {}, "items": [item for name, item in pairs if name in kept]}
    return _encode(_FilterResult(nodes, names, failed or None, unresolvable or None, ""))


def encode_filter_error(message: str) -> bytes:
    """Answer of /filter that fails the scheduling attempt with `message`."""
    return _encode(_FilterResult(None, None, None, None, message))


def encode_priorities(scores: Sequence[HostPriority]) -> bytes:
    """Answer of /prioritize."""
    return _encode(scores)


def encode_bind_result(error: str = "") -> bytes:
    """Answer of /bind; empty says that the pod is bound."""
    return _encode({"Error": error})


def encode_preempt_result(victims: Mapping[str, MetaVictims]) -> bytes:
    """Answer of /preempt: the nodes where evicting these pods makes room. A node left out is no candidate."""
    return _encode(_PreemptResult({node: _listed(one) for node, one in victims.items()}))


def _listed(victims: MetaVictims) -> MetaVictims:
    return victims if victims.pods is not None else MetaVictims([], victims.pdb_violations)


def _by_uid(victims: Victims) -> MetaVictims:
    return MetaVictims([MetaPod(pod.metadata.uid) for pod in victims.pods or ()], victims.pdb_violations)


def _node_name(item: Raw, index: int) -> str:
    return decoded(_named.decode, bytes(item), f"$.Nodes.items[{index}]").metadata.name


def _decode_any_case(decoder: msgspec.json.Decoder[Args], body: bytes) -> Args:
    """Decode with top-level keys in any case, as Go's decoder takes them; the last spelling of a key wins."""
    wanted = {name.casefold(): name for name in decoder.type.__struct_encode_fields__}
    given = decoded(_any_case.decode, body, "$")
    matched = {wanted[key.casefold()]: value for key, value in given.items() if key.casefold() in wanted}
    return decoded(decoder.decode, _encode(matched), "$")
