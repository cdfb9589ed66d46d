"""The host folder of one allocation: its policy and its ledger, as the library will find them.

`wire.policy` has the format. The policy may be written again at any time before the
container runs; the ledger is made once and then belongs to the library. Neither waits for the
disk: after a power cut every container starts anew, and `verify` brings its folder up to date first.
"""

import contextlib
import os
import shutil
from pathlib import Path

from hami.agent.bound import Share
from hami.agent.files import replace_file, says
from hami.agent.grant import BROKER_FOLDER, Host
from hami.config.schema import NvidiaConfig
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.grant import Grant
from hami.model.plan import Slice
from hami.wire.policy import (
    BROKER_PATH,
    LEDGER_PATH,
    MAX_BYTES,
    MAX_CARDS,
    POLICY_PATH,
    CardLimit,
    CorePolicy,
    LibraryPolicy,
    decode,
    encode,
)


def policy_of(grant: Grant, share: Share, cards: tuple[Card, ...], host: Host) -> LibraryPolicy:
    """What the container is held to. Limits are found by card id, never by position.

    Raises Malformed where it has slices of more cards than the library can hold.
    """
    if len(grant.slices) > MAX_CARDS:
        allowed = f"slices of at most {MAX_CARDS} cards: ask for fewer, or for whole cards"
        raise Malformed("its cards", len(grant.slices), allowed)
    config = host.config
    full = {card.id: card.mem_mib for card in cards}
    return LibraryPolicy(
        container=f"{grant.pod.uid}/{grant.container}",
        cards=tuple(
            CardLimit(one.card, _memory(one, full.get(one.card), config), min(one.core_percent, 100))
            for one in grant.slices
        ),
        core_policy=CorePolicy.DISABLE if config.disable_core_limit else CorePolicy(config.gpu_core_policy),
        priority=_priority(share, config),
        broker=BROKER_PATH if has_broker(grant) else None,
        strict=host.settings.strict,
    )


def _memory(one: Slice, card_mem_mib: int | None, config: NvidiaConfig) -> int | None:
    """MiB; None for all there is: of an unscaled card the driver's own total says it better than a rounded number."""
    whole = card_mem_mib is not None and one.mem_mib >= card_mem_mib and config.device_memory_scaling <= 1
    return None if whole else one.mem_mib


def has_broker(grant: Grant) -> bool:
    """Whether the container was given the broker's folder: those of an older agent, or without a broker, were not."""
    return any(mount.container_path == BROKER_FOLDER for mount in grant.mounts)


def needs_policy(grant: Grant) -> bool:
    """Whether the container gets the library; whole cards do not."""
    return any(mount.container_path == POLICY_PATH for mount in grant.mounts)


def ledger_of(grant: Grant) -> Path | None:
    """Where its ledger is: as was told when it was granted, wherever ledgers are made now."""
    return next((Path(mount.host_path) for mount in grant.mounts if mount.container_path == LEDGER_PATH), None)


class Folders:
    """The folders of all allocations, below ``<hook>/vgpu/allocations`` as this process sees it.

    `ledgers`: where ledgers are made, if not in them.
    """

    def __init__(self, root: Path, ledgers: Path | None = None) -> None:
        self.root = root
        self._ledgers = ledgers

    def write(self, key: str, policy: LibraryPolicy, ledger: Path | None) -> bool:
        """Make the folder and the ledger, or bring them up to date. True: the policy was another one, or none.

        Raises OSError (disk full) and Malformed.
        """
        text = encode(policy).encode()
        folder = self.root / key
        (folder / "broker").mkdir(parents=True, exist_ok=True, mode=0o755)
        path = folder / "policy"
        changed = not says(path, text)
        if changed:
            replace_file(path, text, 0o444, durable=False)
        if ledger is not None and not ledger.exists():
            ledger.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            replace_file(ledger, b"", 0o666, durable=False)  # any user of the container may run CUDA
        return changed

    def remove(self, key: str, ledger: Path | None = None) -> None:
        """A container that still runs keeps what it has mounted. `ledger`: where it is; else where ledgers are made."""
        if ledger is None and self._ledgers is not None:
            ledger = self._ledgers / key
        if ledger is not None:
            with contextlib.suppress(OSError):
                ledger.unlink()
        shutil.rmtree(self.root / key, ignore_errors=True)

    def read(self, key: str) -> LibraryPolicy | None:
        """What a folder's container is held to; None where that cannot be read."""
        try:
            with (self.root / key / "policy").open("rb") as file:
                return decode(file.read(MAX_BYTES + 1).decode("latin-1"))
        except (OSError, Malformed):
            return None

    def keys(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            return set()


def _priority(share: Share, config: NvidiaConfig) -> int:
    """0 high, 1 low. From the resource, which admission has checked; the environment is the tenant's."""
    return 0 if str((share.spec.resources.limits or {}).get(config.resource_priority_name, "1")) == "0" else 1
