"""A CDI spec file of the node's cards, for runtimes that take cards by CDI name.

The names are NVIDIA's plugin's, ``k8s.device-plugin.nvidia.com/gpu=<uuid>``. The spec has device nodes and the
driver's files, and no hooks: whatever runtime reads it needs nothing of NVIDIA's (docs/adr/0009-driver-by-cdi.md).
"""

import asyncio
import logging
import platform
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from hami.agent.files import write_durably
from hami.agent.grant import CDI_KIND, CONTROL_NODES
from hami.model.card import Card
from hami.model.ids import CardId
from hami.vendors.nvidia.files import DriverFiles

log = logging.getLogger(__name__)
VERSION = "0.6.0"
FILE_NAME = f"{CDI_KIND.replace('/', '-')}.json"
LIBRARY_FOLDERS = (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64")
"""Where loaders look without being told: Debian's and its kin's, and all others'. One of the two is for nobody."""
PROGRAM_FOLDER = "/usr/bin"
READ_ONLY = ("ro", "nosuid", "nodev", "rbind", "rprivate")
AGAIN_S = 5.0
"""After a spec that a full or read-only disk did not take."""


def spec(
    cards: Sequence[Card],
    minor: Callable[[CardId], int | None],
    has_node: Callable[[str], bool],
    dev_root: str = "/",
    driver: DriverFiles | None = None,
) -> bytes:
    """The file's text. A card whose device node is not known has a name and no node; no `driver`, no files of it."""
    root = dev_root.rstrip("/")

    def nodes(names: list[str]) -> dict[str, object]:
        return {"deviceNodes": [{"path": f"/dev/{name}", "hostPath": f"{root}/dev/{name}"} for name in names]}

    def of_card(card: Card) -> dict[str, object]:
        number = minor(card.id)
        return {"name": card.id, "containerEdits": nodes([] if number is None else [f"nvidia{number}"])}

    common = nodes([name for name in CONTROL_NODES if has_node(name)])
    # With NVIDIA's runtime underneath, the hook must not add cards a second time.
    edits = {"env": ["NVIDIA_VISIBLE_DEVICES=void"], **common, "mounts": list(mounts(driver)) if driver else []}
    text = {
        "cdiVersion": VERSION,
        "kind": CDI_KIND,
        "devices": [of_card(card) for card in cards],
        "containerEdits": edits,
    }
    return msgspec.json.format(msgspec.json.encode(text), indent=2)


def mounts(driver: DriverFiles) -> Iterator[dict[str, object]]:
    """Each library under each of its names, so that neither links nor the loader's cache must be made."""
    targets = [(f"{folder}/{one.name}", one) for folder in LIBRARY_FOLDERS for one in driver.libraries]
    targets += [(f"{PROGRAM_FOLDER}/{one.name}", one) for one in driver.programs]
    for target, one in targets:
        yield {"hostPath": one.host_path, "containerPath": target, "options": list(READ_ONLY)}


def write(folder: str, text: bytes) -> Path:
    """Replace the spec as a whole. Raises OSError."""
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    write_durably(path, text, 0o644)
    return path


async def keep(changes: AsyncIterator[None], text: Callable[[], bytes | None], folder: str) -> None:
    """Keep the spec as the cards are, until cancelled. `text` makes it, of the cards of then; None: not known yet."""
    told = ""
    async for _ in changes:
        while (made := text()) is not None:
            try:
                write(folder, made)
            except OSError as fault:  # what runs needs it no more, and what starts has that of before
                if str(fault) != told:
                    log.error("the CDI spec cannot be written", extra={"why": str(fault)})
                told = str(fault)
                await asyncio.sleep(AGAIN_S)
            else:
                told = ""
                break
