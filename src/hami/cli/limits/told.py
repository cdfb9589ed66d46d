"""Which limits should hold here: as the policy file says, or by hand as the variables do, read as the library does.

`hami limits check` holds what it measures against this, and not against what the library itself shows.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from hami.cli.limits.check import Here, Limits
from hami.model.errors import Malformed, Unavailable
from hami.wire.policy import POLICY_PATH, CorePolicy, LibraryPolicy, decode

_SIZE = re.compile(r"(\d+)([kmgt]?)(i?b?)", re.IGNORECASE)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_MIB = 1 << 20
POLICY = Path(POLICY_PATH)


def limits(
    found: Here, env: Mapping[str, str], mem_mib: int | None, core_percent: int | None, path: Path = POLICY
) -> Limits:
    """Of a card. What was asked for wins. Raises Unavailable: nothing is limited here."""
    policy = policy_here(path)
    told = _by_hand(found, env) if policy is None else _of(policy, found.uuid)
    percent = told.core_percent if core_percent is None else core_percent
    memory = told.mem_mib if mem_mib is None else mem_mib
    percent = None if percent in (0, 100) else percent
    if memory is None and percent is None:
        raise Unavailable(
            "no limit to check: the library is loaded here, and its policy limits neither memory nor time"
        )
    return Limits(memory, percent, core_percent is None and told.idle_is_free)


def policy_here(path: Path = POLICY) -> LibraryPolicy | None:
    """Of this container, after a resize as the agent has put it beside its socket; None: no policy, so no slice.

    Raises Unavailable where there is one that cannot be read.
    """
    try:
        policy = decode(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, Malformed) as fault:
        raise Unavailable(f"{path} cannot be read: {fault}") from fault
    if policy.broker is not None:
        try:
            now = decode(Path(policy.broker).with_name("policy").read_text())
        except (OSError, UnicodeDecodeError, Malformed):
            return policy
        if now.container == policy.container:
            return now
    return policy


def _of(policy: LibraryPolicy, uuid: str) -> Limits:
    card = next((each for each in policy.cards if each.uuid == uuid), None)
    if card is None:
        raise Unavailable(f"the policy of this container does not name its card {uuid}")
    return Limits(card.mem_mib, card.core_percent, policy.core_policy is CorePolicy.DEFAULT)


def _by_hand(found: Here, env: Mapping[str, str]) -> Limits:
    def value(name: str) -> str:
        return env.get(f"{name}_{found.index}") or env.get(name) or ""

    size = value("CUDA_DEVICE_MEMORY_LIMIT")
    memory = _mib(size) if size else None
    cores = int(value("CUDA_DEVICE_SM_LIMIT") or 0)
    core_policy = (env.get("GPU_CORE_UTILIZATION_POLICY") or CorePolicy.DEFAULT.value).lower()
    if memory is not None and memory > found.total_mib:
        memory = found.total_mib  # more than the card has: the card
    return Limits(memory or None, cores, core_policy == CorePolicy.DEFAULT.value)


def _mib(size: str) -> int:
    """The library has taken it, so it is a size."""
    match = _SIZE.fullmatch(size)
    return int(match[1]) * (1 << _SHIFT[match[2].lower()]) // _MIB if match else 0
