"""A CDI spec file of the node's cards, for runtimes that take cards by CDI name.

The names are NVIDIA's plugin's, ``k8s.device-plugin.nvidia.com/gpu=<uuid>``. The spec has the
device nodes; the driver's libraries are the runtime's business (nvidia-ctk writes those).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hami.agent.checkpoint import write_durably
from hami.agent.grant import CDI_KIND, CONTROL_NODES
from hami.model.card import Card
from hami.model.ids import CardId

VERSION = "0.6.0"
FILE_NAME = f"{CDI_KIND.replace('/', '-')}.json"


def spec(
    cards: Sequence[Card], minor: Callable[[CardId], int | None], has_node: Callable[[str], bool], dev_root: str = "/"
) -> bytes:
    """The file's text. A card whose device node is not known has a name and no node."""
    root = dev_root.rstrip("/")

    def nodes(names: list[str]) -> dict[str, object]:
        return {"deviceNodes": [{"path": f"/dev/{name}", "hostPath": f"{root}/dev/{name}"} for name in names]}

    def of_card(card: Card) -> dict[str, object]:
        number = minor(card.id)
        return {"name": card.id, "containerEdits": nodes([] if number is None else [f"nvidia{number}"])}

    common = nodes([name for name in CONTROL_NODES if has_node(name)])
    # With NVIDIA's runtime underneath, the hook must not add cards a second time.
    edits = {"env": ["NVIDIA_VISIBLE_DEVICES=void"], **common}
    text = {
        "cdiVersion": VERSION,
        "kind": CDI_KIND,
        "devices": [of_card(card) for card in cards],
        "containerEdits": edits,
    }
    return msgspec.json.format(msgspec.json.encode(text), indent=2)


def write(folder: str, text: bytes) -> Path:
    """Replace the spec as a whole. Raises OSError."""
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    write_durably(path, text, 0o644)
    return path
