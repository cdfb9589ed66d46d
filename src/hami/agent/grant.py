"""What a container is given: environment, mounts, device nodes, CDI names. HAMi's names and forms.

Pure: the same arguments give the same grant. Limits that count are in the policy file
(`policy`), by card; the environment repeats them for people and older tools.
"""

import hashlib
from collections.abc import Callable

from msgspec import Struct

from hami.agent.bound import Share
from hami.agent.settings import Settings, Strategy
from hami.config.schema import NvidiaConfig
from hami.model.ask import PodRef
from hami.model.card import Card
from hami.model.grant import DeviceNode, Grant, Mount
from hami.model.ids import CardId
from hami.model.plan import ContainerSlices
from hami.wire.policy import BROKER_PATH, LEDGER_PATH, POLICY_PATH

LIBRARY_PATH = "/usr/local/vgpu/libvgpu.so"
BROKER_FOLDER = BROKER_PATH.rpartition("/")[0]
PRELOAD_PATH = "/etc/ld.so.preload"
VISIBLE_FOLDER = "/var/run/nvidia-container-devices"
"""Where NVIDIA's runtime hook looks for mounts that name the cards."""
CDI_KIND = "k8s.device-plugin.nvidia.com/gpu"
CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
ALLOCATION = "hami.io/allocation"
"""In each answer, for the runtime's eyes: which allocation it is. kubelet keeps it, so it can be told from another."""
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


class Host(Struct, frozen=True):
    """What grants depend on besides the record: configuration, and where things are on the host."""

    settings: Settings
    read_config: Callable[[], NvidiaConfig]
    """The node's configuration as it is now: it may change while we run."""
    library: str
    """The installed library on the host, with its version in the name."""
    minor: Callable[[CardId], int | None]
    has_node: Callable[[str], bool] = lambda _: True
    """Whether a node ``/dev/<name>`` is there; some drivers lack nvidia-modeset."""

    @property
    def config(self) -> NvidiaConfig:
        return self.read_config()

    @property
    def vgpu(self) -> str:
        return f"{self.settings.hook_path.rstrip('/')}/vgpu"

    def folder(self, key: str) -> str:
        """The host folder of one allocation."""
        return f"{self.vgpu}/allocations/{key}"

    def ledger(self, key: str) -> str:
        """The host file of its ledger."""
        ledgers = self.settings.ledger_dir.rstrip("/")
        return f"{ledgers}/{key}" if ledgers else f"{self.folder(key)}/ledger"


def key_of(pod: PodRef, container: str, kubelet_ids: tuple[str, ...]) -> str:
    """Name of an allocation: the same ask has the same one, no two asks share one."""
    text = "\n".join((pod.uid, container, *kubelet_ids))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ordered(slices: ContainerSlices, cards: dict[CardId, Card]) -> ContainerSlices:
    """By card index: as near as an environment can come to how CUDA will number them."""
    return tuple(sorted(slices, key=lambda one: (cards[one.card].index if one.card in cards else 1 << 16, one.card)))


def whole(slices: ContainerSlices, cards: dict[CardId, Card], config: NvidiaConfig) -> bool:
    """Whether these are whole cards, which run native. With scaled memory none is: it may be more than there is."""
    return config.device_memory_scaling <= 1 and all(
        (card := cards.get(one.card)) is not None
        and one.mem_mib >= card.mem_mib
        and one.core_percent >= max(100, card.core_percent)
        for one in slices
    )


def build(
    pod: PodRef, share: Share, kubelet_ids: tuple[str, ...], *, key: str, cards: tuple[Card, ...], host: Host
) -> Grant:
    """The grant of one container. `key` names the allocation's folder, which stays if the pod is exchanged."""
    known = {card.id: card for card in cards}
    slices = ordered(share.slices, known)
    native = whole(slices, known, host.config)
    strategies = host.settings.device_list_strategy
    plain = any(not strategy.startswith("cdi") for strategy in strategies)
    env = _visible(slices, strategies) | (_extras(host) if plain else {})
    mounts = _device_mounts(slices, strategies)
    if not native:
        env |= _limits(slices, host.config)
        mounts += _library_mounts(share, key, host)
    return Grant(
        pod=pod,
        container=share.name,
        kubelet_ids=kubelet_ids,
        slices=slices,
        env=env,
        mounts=mounts,
        devices=_nodes(slices, host) if plain and host.settings.pass_device_specs else (),
        cdi=_cdi_names(slices, host) if "cdi-cri" in strategies else (),
        annotations={ALLOCATION: key} | (_cdi_annotation(slices, key, host) if "cdi-annotations" in strategies else {}),
    )


def fixed_part(grant: Grant) -> tuple[object, ...]:
    """All that kubelet has been told and that nobody can change before the container starts."""
    return grant.env, grant.mounts, grant.devices, grant.cdi, grant.annotations


def controls_off(share: Share) -> bool:
    """Whether the author asks for no limits; a value from elsewhere (valueFrom) counts as no."""
    return any(one.name == "CUDA_DISABLE_CONTROL" and one.value in _TRUE for one in share.spec.env or ())


def _visible(slices: ContainerSlices, strategies: tuple[Strategy, ...]) -> dict[str, str]:
    if "volume-mounts" in strategies:
        return {"NVIDIA_VISIBLE_DEVICES": VISIBLE_FOLDER}
    if "envvar" in strategies:
        return {"NVIDIA_VISIBLE_DEVICES": ",".join(one.card for one in slices)}
    return {}


def _limits(slices: ContainerSlices, config: NvidiaConfig) -> dict[str, str]:
    env = {f"CUDA_DEVICE_MEMORY_LIMIT_{index}": f"{one.mem_mib}m" for index, one in enumerate(slices)}
    env["CUDA_DEVICE_SM_LIMIT"] = str(slices[0].core_percent)
    if len({one.core_percent for one in slices}) > 1:
        env |= {f"CUDA_DEVICE_SM_LIMIT_{index}": str(one.core_percent) for index, one in enumerate(slices)}
    env["CUDA_DEVICE_MEMORY_SHARED_CACHE"] = LEDGER_PATH
    env["LIBCUDA_LOG_LEVEL"] = str(config.lib_cuda_log_level)
    if config.device_memory_scaling > 1:
        env["CUDA_OVERSUBSCRIBE"] = "true"
    if config.disable_core_limit:
        env["GPU_CORE_UTILIZATION_POLICY"] = "disable"
    return env


def _extras(host: Host) -> dict[str, str]:
    settings = host.settings
    flags = {
        "NVIDIA_GDRCOPY": settings.gdrcopy_enabled,
        "NVIDIA_GDS": settings.gds_enabled,
        "NVIDIA_MOFED": settings.mofed_enabled,
    }
    return {name: "enabled" for name, on in flags.items() if on}


def _device_mounts(slices: ContainerSlices, strategies: tuple[Strategy, ...]) -> tuple[Mount, ...]:
    if "volume-mounts" not in strategies:
        return ()
    return tuple(Mount(f"{VISIBLE_FOLDER}/{one.card}", "/dev/null") for one in slices)


def _library_mounts(share: Share, key: str, host: Host) -> tuple[Mount, ...]:
    folder = host.folder(key)
    mounts: tuple[Mount, ...] = (
        Mount(LIBRARY_PATH, host.library),
        Mount(POLICY_PATH, f"{folder}/policy"),
        Mount(LEDGER_PATH, host.ledger(key), read_only=False),
    )
    if host.settings.broker:
        # The folder, not the socket: a restarted agent makes a new one. A read-only mount lets sockets be connected to.
        mounts += (Mount(BROKER_FOLDER, f"{folder}/broker"),)
    if host.config.allow_disable_control and controls_off(share):
        return mounts
    return (*mounts, Mount(PRELOAD_PATH, f"{host.vgpu}/ld.so.preload"))


def _nodes(slices: ContainerSlices, host: Host) -> tuple[DeviceNode, ...]:
    minors = [host.minor(one.card) for one in slices]
    names = [name for name in CONTROL_NODES if host.has_node(name)]
    names += [f"nvidia{minor}" for minor in minors if minor is not None]
    root = host.settings.dev_root.rstrip("/")
    return tuple(DeviceNode(f"/dev/{name}", f"{root}/dev/{name}") for name in names)


def _cdi_names(slices: ContainerSlices, host: Host) -> tuple[str, ...]:
    settings = host.settings
    kinds = {"gdrcopy": settings.gdrcopy_enabled, "gds": settings.gds_enabled, "mofed": settings.mofed_enabled}
    vendor = CDI_KIND.partition("/")[0]
    extras = (f"{vendor}/{kind}=all" for kind, on in kinds.items() if on)
    return (*(f"{CDI_KIND}={one.card}" for one in slices), *extras)


def _cdi_annotation(slices: ContainerSlices, key: str, host: Host) -> dict[str, str]:
    name = f"{host.settings.cdi_annotation_prefix}nvidia-device-plugin_{key}"
    return {name: ",".join(_cdi_names(slices, host))}
