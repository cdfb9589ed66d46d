"""NVIDIA's description: resource names, ranges, defaults, what an ask means.

HAMi's rules with one difference: what HAMi drops or bends in silence is refused
here with the path, the value and the way out (docs/reference/requests.md).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from hami.config.schema import NvidiaConfig
from hami.model.ask import CardAsk, CardRules
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family
from hami.model.quota import Measure, Quantum
from hami.model.vendor import ContainerChange, ContainerRequest, PodChange
from hami.vendors.nvidia import mig as nvidia_mig
from hami.vendors.nvidia import rules as nvidia_rules
from hami.wire import annotations as keys
from hami.wire import register
from hami.wire.quantity import binary_suffix, parse, whole

NVIDIA = Family("NVIDIA")
_MAX_INT32 = 2**31 - 1
_TIB = 1 << 20  # in MiB
_FALSE = ("0", "f", "F", "false", "FALSE", "False", "")


class _Wanted(Struct, frozen=True):
    """One container's numbers, each None where nothing was written."""

    cards: int | None
    mem_mib: int | None
    mem_percent: int | None
    core_percent: int | None
    priority: int | None

    @property
    def shares(self) -> bool:
        """Whether anything was asked of a card, other than how many."""
        return bool(self.mem_mib or self.mem_percent or self.core_percent)

    @property
    def says_shares(self) -> bool:
        """Whether memory or cores were written at all, be it as zero."""
        return not (self.mem_mib is None and self.mem_percent is None and self.core_percent is None)


class Nvidia:
    """Implements `model.vendor.Vendor` for NVIDIA cards under one configuration."""

    family = NVIDIA
    annotations = nvidia_rules.KEYS
    register_annotation = "hami.io/node-nvidia-register"
    links_annotation = "hami.io/node-nvidia-score"
    mig = True
    to_allocate_annotation = "hami.io/vgpu-devices-to-allocate"
    allocated_annotation = "hami.io/vgpu-devices-allocated"

    def __init__(self, config: NvidiaConfig) -> None:
        self.config = config
        self.resources: Sequence[str] = (
            config.resource_count_name,
            config.resource_memory_name,
            config.resource_memory_percentage_name,
            config.resource_core_name,
            config.resource_priority_name,
        )
        self.quotas: Sequence[Quantum] = (
            Quantum(config.resource_count_name, NVIDIA, Measure.CARDS),
            Quantum(config.resource_memory_name, NVIDIA, Measure.MEMORY, config.memory_factor),
            Quantum(config.resource_core_name, NVIDIA, Measure.CORES),
        )

    # what the webhook writes

    def complete(self, containers: Sequence[ContainerRequest], annotations: Mapping[str, str]) -> PodChange:
        """What a new pod lacks: implied counts, exclusive defaults, environment. Raises `Malformed`."""
        wanted = [self._wanted(container) for container in containers]
        asks = [self._asks(container, want) for container, want in zip(containers, wanted, strict=True)]
        warnings = [
            *self._misplaced(any(asks), containers, annotations),
            *(warning for pair in zip(containers, wanted, strict=True) for warning in self._doubts(*pair)),
        ]
        if any(asks):
            self.rules(annotations)
            warnings += nvidia_rules.doubts(annotations)
        return PodChange(
            asks=any(asks),
            containers=tuple(map(self._change, containers, wanted, asks)),
            runtime_class=(self.config.runtime_class_name or None) if any(asks) else None,
            warnings=tuple(warnings),
        )

    def _change(self, container: ContainerRequest, want: _Wanted, asks: bool) -> ContainerChange:
        if not asks:
            return ContainerChange(env={"NVIDIA_VISIBLE_DEVICES": "none"} if self.config.overwrite_env else {})
        self._refuse_switched_off(container)
        limits: dict[str, str] = {}
        if want.cards is None:
            limits[self.config.resource_count_name] = str(self.config.default_gpu_num)
        if self._whole_card(want):
            limits[self.config.resource_core_name] = "100"
        env: dict[str, str] = {}
        if want.priority is not None:
            env["CUDA_TASK_PRIORITY"] = str(want.priority)
        if self.config.gpu_core_policy != "default":
            env["GPU_CORE_UTILIZATION_POLICY"] = self.config.gpu_core_policy
        return ContainerChange(limits=limits, env=env)

    def _whole_card(self, want: _Wanted) -> bool:
        """Cards with all their memory and no word on cores: nobody else could use the cores, so they are asked too."""
        if want.core_percent is not None:
            return False
        if want.mem_mib is not None:
            return False
        if want.mem_percent is not None:
            return want.mem_percent == 100
        return self.config.default_memory == 0

    def _asks(self, container: ContainerRequest, want: _Wanted) -> bool:
        """Whether this container gets cards; a share without a count implies one. Refuses shares of no card."""
        if want.cards:
            return True
        if not (want.shares if want.cards == 0 else want.says_shares):
            return False
        if want.cards is None and self.config.default_gpu_num > 0:
            return True
        raise self._no_card(container, want, "1 or more where memory or cores are asked")

    def _no_card(self, container: ContainerRequest, want: _Wanted, allowed: str) -> Malformed:
        path = _path(container, "limits", self.config.resource_count_name)
        return Malformed(path, None if want.cards is None else "0", allowed)

    def _refuse_switched_off(self, container: ContainerRequest) -> None:
        """Row 3.12: a tenant must not lift its own limits unless the administrator lets it."""
        if self.config.allow_disable_control or "CUDA_DISABLE_CONTROL" not in container.env:
            return
        value = container.env["CUDA_DISABLE_CONTROL"]
        if value is None or value not in _FALSE:
            path = f"{container.path}.env[CUDA_DISABLE_CONTROL]"
            raise Malformed(path, value, "false: limits may not be turned off (allowDisableControl is not set)")

    def _misplaced(
        self, asks: bool, containers: Sequence[ContainerRequest], annotations: Mapping[str, str]
    ) -> Sequence[str]:
        """Resources written as annotations, where they have no effect (#2862): a warning, or a refusal.

        A pod that gets cards and whose share stands only in an annotation would
        take whole cards in silence.
        """
        warnings = []
        for resource in self.resources:
            if resource not in annotations:
                continue
            path = f"metadata.annotations[{resource}]"
            if asks and not any(resource in {**one.requests, **one.limits} for one in containers):
                allowed = "nothing: it is a resource, write it under resources.limits of a container"
                raise Malformed(path, annotations[resource], allowed)
            warnings.append(f"{path} has no effect: {resource} is a resource, it belongs under resources.limits")
        return warnings

    def _doubts(self, container: ContainerRequest, want: _Wanted) -> Sequence[str]:
        """What is legal but probably not meant."""
        names = self.config
        warnings = []
        if want.mem_mib is not None and want.mem_percent is not None:
            memory, percentage = names.resource_memory_name, names.resource_memory_percentage_name
            warnings.append(f"{container.path}: {memory} and {percentage} are both set: {memory} counts")
        if want.mem_mib is not None and want.mem_mib > _TIB:
            memory = names.resource_memory_name
            warnings.append(f"{container.path}: {memory} counts MiB: {want.mem_mib} are more than a TiB a card")
        if want.priority is not None and not want.cards and not want.says_shares:
            warnings.append(f"{container.path}: {names.resource_priority_name} has no effect without a card")
        return warnings

    # what the scheduler plans with

    def card_ask(self, container: ContainerRequest, rules: CardRules) -> CardAsk | None:
        """The container's ask; None when it asks for none of this family. Raises `Malformed`.

        A share without a count is refused: kubelet allocates by the count, so a
        pod the webhook did not complete would run without its card.
        """
        want = self._wanted(container)
        if want.cards is None and want.says_shares:
            raise self._no_card(container, want, "needed beside memory and cores; the webhook has not seen this pod")
        if not want.cards:
            self._asks(container, want)
            return None
        mem_mib, mem_percent = self._memory(want)
        return CardAsk(
            family=NVIDIA,
            cards=want.cards,
            core_percent=self.config.default_cores if want.core_percent is None else want.core_percent,
            mem_mib=mem_mib,
            mem_percent=mem_percent,
            rules=rules,
        )

    def _memory(self, want: _Wanted) -> tuple[int | None, int | None]:
        """MiB or percent of a card, one of them None: MiB before percentage before the default before all."""
        if want.mem_mib is not None:
            return want.mem_mib, None
        if want.mem_percent is not None:
            return None, want.mem_percent
        if self.config.default_memory:
            return self.config.default_memory, None
        return None, 100

    def rules(self, annotations: Mapping[str, str]) -> CardRules:
        """Type, uuid, mode and NUMA rules from the pod's annotations."""
        return nvidia_rules.card_rules(annotations)

    def decode_register(self, text: str) -> tuple[Card, ...]:
        """Cards from the register annotation, sorted by index."""
        cards = register.decode(text, NVIDIA, f"metadata.annotations[{self.register_annotation}]")
        return tuple(nvidia_mig.allowed(card, self.config.mig_profile_allowlist) for card in cards)

    def decode_links(self, text: str) -> Mapping[CardId, Mapping[CardId, int]]:
        """What the links between two cards are worth."""
        return register.decode_scores(text, f"metadata.annotations[{self.links_annotation}]")

    def cordoned(self, annotations: Mapping[str, str]) -> frozenset[str]:
        """Card ids the operator has cordoned on the node."""
        return frozenset(keys.words(annotations.get(keys.CORDON)))

    # numbers

    def _wanted(self, container: ContainerRequest) -> _Wanted:
        """All the numbers of a container, each in its range."""
        names = self.config
        cards = self._number(container, names.resource_count_name, 0, _MAX_INT32)
        least = 0 if cards == 0 else 1  # all zeros is how templates say "no card"
        return _Wanted(
            cards=cards,
            mem_mib=self._mem_mib(container, least),
            mem_percent=self._number(container, names.resource_memory_percentage_name, least, 100),
            core_percent=self._number(container, names.resource_core_name, 0, 100),
            priority=self._number(container, names.resource_priority_name, 0, 1),
        )

    def _mem_mib(self, container: ContainerRequest, least: int) -> int | None:
        """MiB a card. A byte suffix is refused: 16Gi of a resource that counts MiB is 16 TiB of MiB."""
        name, factor = self.config.resource_memory_name, self.config.memory_factor
        kind, text = _written(container, name)
        if text is None:
            return None
        path = _path(container, kind, name)
        if binary_suffix(text):
            units = parse(text, path) / (factor << 20)
            plain = f", {units}" if units.denominator == 1 and units > 0 else ""
            unit = "MiB" if factor == 1 else f"units of {factor} MiB"
            raise Malformed(path, text, f"{unit} as a plain number{plain}")
        return whole(text, path, least, _MAX_INT32 // factor) * factor

    def _number(self, container: ContainerRequest, name: str, low: int, high: int) -> int | None:
        kind, text = _written(container, name)
        return None if text is None else whole(text, _path(container, kind, name), low, high)


def _written(container: ContainerRequest, name: str) -> tuple[str, str | None]:
    """Where a resource is written, limits before requests, and its text."""
    if name in container.limits:
        return "limits", container.limits[name]
    return "requests", container.requests.get(name)


def _path(container: ContainerRequest, kind: str, name: str) -> str:
    return f"{container.path}.resources.{kind}[{name}]"
