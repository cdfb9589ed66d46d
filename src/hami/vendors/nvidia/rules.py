"""NVIDIA's pod annotations: which cards a pod accepts, and doubts about what is written.

Matching of cards is the engine's; this only reads what the user wrote.
"""

from collections.abc import Mapping

from hami.model.ask import CardRules
from hami.model.errors import Malformed
from hami.wire.annotations import words

USE_TYPE = "nvidia.com/use-gputype"
NOUSE_TYPE = "nvidia.com/nouse-gputype"
USE_UUID = "nvidia.com/use-gpuuuid"
NOUSE_UUID = "nvidia.com/nouse-gpuuuid"
NUMA_BIND = "nvidia.com/numa-bind"
MODE = "nvidia.com/vgpu-mode"
KEYS = (USE_TYPE, NOUSE_TYPE, USE_UUID, NOUSE_UUID, NUMA_BIND, MODE)
MODES = ("hami-core", "mig", "mps")

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def card_rules(annotations: Mapping[str, str]) -> CardRules:
    """The rules; an absent or blank annotation is no rule. Raises `Malformed` for a mode that no card can have."""
    return CardRules(
        use_types=words(annotations.get(USE_TYPE)),
        nouse_types=words(annotations.get(NOUSE_TYPE)),
        use_ids=words(annotations.get(USE_UUID)),
        nouse_ids=words(annotations.get(NOUSE_UUID)),
        modes=_modes(annotations.get(MODE, "")),
        numa_bind=annotations.get(NUMA_BIND, "").strip() in _TRUE,
    )


def _modes(text: str) -> tuple[str, ...]:
    """HAMi asks whether the text contains a card's mode, so ``mig,hami-core`` accepts both."""
    if not text.strip():
        return ()
    modes = tuple(mode for mode in MODES if mode in text)
    if not modes:
        raise Malformed(f"metadata.annotations[{MODE}]", text, f"one or more of {', '.join(MODES)}")
    return modes


def doubts(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Annotations that are read as nothing though their author meant something."""
    bind = annotations.get(NUMA_BIND, "").strip()
    if bind and bind not in _TRUE + _FALSE:
        return (f"metadata.annotations[{NUMA_BIND}]: {bind[:40]!r} is neither true nor false: it counts as false",)
    return ()
