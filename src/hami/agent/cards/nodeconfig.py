"""This node's configuration: the cluster's device-config.yaml with the node's entries of config.json over it.

Both files are read again when they change, without a restart. At the start a bad
file is fatal; later it is reported and the last good one stays in force, so a
typo never brings a filtered card back. Knows files and text, no cards.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from hami.config import load
from hami.config.schema import (
    DeviceConfig,
    FilterDevices,
    NodeOverride,
    NodeOverrides,
    NvidiaConfig,
    OperatingMode,
)
from hami.model.errors import Malformed

log = logging.getLogger(__name__)
T = TypeVar("T")
LOG_LEVELS = {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}


class NodeRules(Struct, frozen=True):
    """What holds on this node."""

    nvidia: NvidiaConfig = NvidiaConfig()
    """The cluster's section with this node's values in it."""
    mode: OperatingMode = "hami-core"
    filtered: FilterDevices = FilterDevices()
    """Cards that are not offered."""
    preferred_allocation: bool = True


def merge(config: DeviceConfig, overrides: NodeOverrides, node: str) -> NodeRules:
    """The rules of one node: every entry of its name counts, in file order, later ones win.

    A key that is written is meant: 0, false and an empty list override, too.
    Raises Malformed for a log level that is none.
    """
    rules = NodeRules(nvidia=config.nvidia)
    for position, entry in enumerate(overrides.nodeconfig):
        if entry.name == node:
            rules = _apply(rules, entry, f"$.nodeconfig[{position}]")
    return rules


def _apply(rules: NodeRules, entry: NodeOverride, path: str) -> NodeRules:
    nvidia = rules.nvidia
    return NodeRules(
        nvidia=replace(
            nvidia,
            device_split_count=_over(entry.devicesplitcount, nvidia.device_split_count),
            device_memory_scaling=_over(entry.devicememoryscaling, nvidia.device_memory_scaling),
            device_core_scaling=_over(entry.devicecorescaling, nvidia.device_core_scaling),
            pre_configured_device_memory=_over(entry.preconfigureddevicememory, nvidia.pre_configured_device_memory),
            lib_cuda_log_level=_log_level(entry.libcudaloglevel, nvidia.lib_cuda_log_level, path),
            enable_numa_topology=_over(entry.enablenumatopology, nvidia.enable_numa_topology),
        ),
        mode=_over(entry.operatingmode, rules.mode),
        filtered=_over(entry.filterdevices, rules.filtered),
        preferred_allocation=_over(entry.enablegetpreferredallocation, rules.preferred_allocation),
    )


def _over(own: T | None, cluster: T) -> T:
    return cluster if own is None else own


def _log_level(text: str | None, cluster: int, path: str) -> int:
    """HAMi has it as text here and an empty one means nothing said."""
    if text is None or not text.strip():
        return cluster
    if text.strip() not in LOG_LEVELS:
        raise Malformed(f"{path}.libcudaloglevel", text, 'a text, "0" to "4"')
    return LOG_LEVELS[text.strip()]


class NodeConfig:
    """The two files and what they say now. `None` for a path is that file's defaults."""

    def __init__(self, node: str, device_file: Path | None, node_file: Path | None) -> None:
        """Reads both; raises Malformed, also for a device file that is missing. The node file may be missing."""
        self._node = node
        self._device_file = device_file
        self._node_file = node_file
        self._stamps = self._look()
        self.rules = self._read()
        self.problem: str | None = None
        """Why the files as they are now are not in force; None when they are."""

    def refresh(self) -> bool:
        """Read again what has changed. True if the rules are others now."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            rules = self._read()
        except Malformed as fault:
            self.problem = f"{fault}; what was read before stays in force"
            log.error("configuration not usable", extra={"why": str(fault)})
            return False
        self.problem = None
        changed, self.rules = rules != self.rules, rules
        if changed:
            log.info("configuration has changed", extra={"mode": rules.mode, "split": rules.nvidia.device_split_count})
        return changed

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(file) for file in (self._device_file, self._node_file))

    def _read(self) -> NodeRules:
        config = DeviceConfig()
        if self._device_file is not None:
            config = _loaded(self._device_file, load.device_config)
        overrides = NodeOverrides()
        if self._node_file is not None and self._node_file.exists():
            overrides = _loaded(self._node_file, load.node_overrides)
        try:
            return merge(config, overrides, self._node)
        except Malformed as fault:
            raise Malformed(f"{self._node_file}:{fault.path}", fault.value, fault.allowed) from None


def _loaded(file: Path, read: Callable[[str, str], T]) -> T:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is no UTF-8"
        raise Malformed("configuration", str(file), f"a text file this process may read: {why}") from fault
    return read(text, file.name)


def _stamp(file: Path | None) -> object:
    """Tells one state of a file from another. A ConfigMap's files are links that are swapped: stat follows them."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_ino, found.st_size)
