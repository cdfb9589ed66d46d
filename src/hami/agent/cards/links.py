"""What the links between two cards of this node are worth, in HAMi's points (`hami.io/node-nvidia-score`).

The way over PCIe plus 100 for each NVLink between the two; cards on NVSwitches have as
many links to each other as the one with fewer has. Where the driver tells one direction
otherwise than the other, or does not answer, the pair is worth nothing. Runs in the driver's thread.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import permutations

from msgspec import Struct

from hami.model.errors import Unavailable
from hami.model.ids import CardId
from hami.vendors.nvidia.nvml import Device, Level, NvLink, Nvml

Links = Mapping[CardId, Mapping[CardId, int]]

PCIE = {
    Level.SYSTEM: 10,
    Level.NODE: 20,
    Level.HOST_BRIDGE: 30,
    Level.SWITCHES: 40,
    Level.SWITCH: 50,
    Level.BOARD: 60,
}
NVLINK = 100
"""Points for one link."""


class Joined(Struct, frozen=True):
    """All pairs of a node's cards, both ways."""

    links: Links = {}
    uneven: tuple[tuple[CardId, CardId], ...] = ()
    """Pairs whose two directions differ: a driver or a board at fault."""


class _End(Struct, frozen=True):
    """One card as its neighbours see it."""

    device: Device
    place: str
    links: tuple[NvLink, ...]


def joined(nvml: Nvml, cards: Mapping[CardId, Device]) -> Joined:
    """The cards' links. Costs a question a pair and three a link: not for every look."""
    ends = {card: _end(nvml, device) for card, device in cards.items()}
    worth = {(one, two): _worth(nvml, ends[one], ends[two]) for one, two in permutations(ends, 2)}
    uneven = tuple((one, two) for one, two in worth if one < two and worth[one, two] != worth[two, one])
    bad = {*uneven, *((two, one) for one, two in uneven)}
    links = {one: {two: 0 if (one, two) in bad else worth[one, two] for two in ends if two != one} for one in ends}
    return Joined(links if len(ends) > 1 else {}, uneven)


def _end(nvml: Nvml, device: Device) -> _End:
    """Of a card that does not tell, none: its links are the least that anybody wants of it."""
    try:
        return _End(device, nvml.pci(device).sysfs_name, nvml.nvlinks(device))
    except Unavailable:
        return _End(device, "", ())


def _worth(nvml: Nvml, one: _End, two: _End) -> int:
    try:
        pcie = PCIE.get(nvml.level(one.device, two.device), 0)
    except Unavailable:
        pcie = 0
    return pcie + NVLINK * _count(one, two)


def _count(one: _End, two: _End) -> int:
    """NVLinks from `one` to `two`: direct ones, or what both have into the switches."""
    direct = Counter(link.remote.sysfs_name for link in one.links if not link.to_switch)[two.place]
    switched = min(_switched(one), _switched(two))
    return direct + switched


def _switched(end: _End) -> int:
    return sum(link.to_switch for link in end.links)
