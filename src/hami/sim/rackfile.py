"""The file that the simulated NVML reads (native/sim-nvml/parse.c), made from a rack.

One word and its values a line; the last line, ``end``, tells a whole file from a
part of one. It is replaced in one step, so a reader sees the old rack or the new.
"""

from collections.abc import Iterator
from pathlib import Path

from hami.sim.models import MODELS, Model
from hami.sim.rack import RECOVERIES, RESULTS, Event, Fault, Process, Rack, SimCard, uuid_of

HEADER = "hami-sim-cards 1"
MIB = 1 << 20


def render(rack: Rack) -> str:
    """The description as the simulated NVML reads it (native/sim-nvml/parse.c)."""
    major, minor = rack.cuda.split(".")
    lines = [HEADER, f"driver {rack.driver}", f"nvml {major}.{rack.driver}"]
    lines.append(f"cuda {int(major) * 1000 + int(minor) * 10}")
    lines += map(fault_line, rack.faults)
    for index in range(len(rack.cards)):
        lines += card_lines(rack, index)
    return "\n".join([*lines, "end", ""])


def card_lines(rack: Rack, index: int) -> Iterator[str]:
    card = rack.cards[index]
    model = MODELS[card.model]
    yield "card"
    yield f"uuid {uuid_of(rack, index)}"
    yield f"name {card.name or model.name}"
    yield f"serial 16{index:011d}"
    yield f"minor {index if card.minor is None else card.minor}"
    yield f"pci {pci_of(rack, index)} {model.pci_id:08X} {model.pci_subsystem:08X}"
    yield memory_line(card, model)
    yield f"numa {card.numa}"
    yield f"compute {model.capability[0]} {model.capability[1]} {model.architecture} {model.cores}"
    busy = busy_of(card)
    yield f"busy {busy} {busy // 2}"
    yield f"temperature {card.temperature}"
    yield f"power {model.idle_watt * 1000 + (model.watt - model.idle_watt) * busy * 10} {model.watt * 1000}"
    yield f"clocks {model.clocks[0] if busy else 345} {model.clocks[0]} {model.clocks[1]} {model.clocks[1]}"
    yield f"recovery {RECOVERIES.index(card.recovery)}"
    yield f"remapped 0 {int(card.remap_pending or card.remap_failed)} {card.remap_pending:d} {card.remap_failed:d}"
    yield f"ecc {'on' if model.ecc else 'none'}"
    yield f"mig {card.mig} {card.mig}" if model.mig else "mig none none"
    yield from (profile.line for profile in model.mig)
    yield from pair_lines(rack, index)
    yield from map(process_line, card.processes)
    yield from map(event_line, card.events)
    yield from map(fault_line, card.faults)
    if card.lost:
        yield "lost"


def pci_of(rack: Rack, index: int) -> str:
    """Bus ids as on a common server: two buses a card, from 0x07."""
    return rack.cards[index].pci or f"00000000:{7 + index * 2:02X}:00.0"


def memory_line(card: SimCard, model: Model) -> str:
    total = model.mem_mib if card.mem_mib is None else card.mem_mib
    if not total:
        return "memory none"
    held = sum(process.mem_mib or 0 for process in card.processes)
    return f"memory {total * MIB} {min(model.reserved_mib, total) * MIB} {(held + (card.used_mib or 0)) * MIB}"


def busy_of(card: SimCard) -> int:
    if card.busy_percent is not None:
        return card.busy_percent
    return min(100, sum(process.busy_percent for process in card.processes))


def pair_lines(rack: Rack, index: int) -> Iterator[str]:
    """How this card is joined to each other one."""
    yield from link_lines(rack, index)
    for other in range(len(rack.cards)):
        if other != index:
            yield f"path {other} {path_level(rack, index, other)}"


def path_level(rack: Rack, index: int, other: int) -> int:
    if rack.paths is not None:
        return rack.paths[index][other]
    same = rack.cards[index].numa == rack.cards[other].numa
    return 40 if same else 50


def link_lines(rack: Rack, index: int) -> Iterator[str]:
    model = MODELS[rack.cards[index].model]
    if rack.nvlinks is None:
        # Six switches share the links, as on HGX boards.
        for link in range(model.nvlinks if len(rack.cards) > 1 else 0):
            yield f"link switch {model.nvlink_version} 00000000:{0xC4 + link % 6:02X}:00.0"
        return
    taken = 0
    for other, links in enumerate(rack.nvlinks[index]):
        for _ in range(links if other != index else 0):
            yield f"link gpu {model.nvlink_version} {pci_of(rack, other)}"
            taken += 1
    for _ in range(taken, model.nvlinks):
        yield f"link down {model.nvlink_version} 00000000:00:00.0"


def process_line(process: Process) -> str:
    memory = -1 if process.mem_mib is None else process.mem_mib * MIB
    ids = f"{number(process.gpu_instance)} {number(process.compute_instance)}"
    return f"process {process.pid} {process.kind} {memory} {process.busy_percent} 0 0 0 {ids}"


def event_line(event: Event) -> str:
    ids = f"{number(event.gpu_instance)} {number(event.compute_instance)}"
    return f"event {event.sequence} {event.type} {event.value} {ids}"


def fault_line(fault: Fault) -> str:
    return f"fault {fault.function} {RESULTS[fault.result]} {fault.delay_ms}"


def number(value: int | None) -> int:
    return -1 if value is None else value


def write(path: Path, rack: Rack) -> None:
    """Replace the file by a new one in one step: a reader sees the old rack or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(render(rack))
    fresh.rename(path)


def write_sysfs(root: Path, rack: Rack) -> None:
    """What the kernel would tell of the cards' places: ``<root>/bus/pci/devices/<id>/numa_node``."""
    for index, card in enumerate(rack.cards):
        domain, rest = pci_of(rack, index).lower().split(":", 1)
        folder = root / "bus/pci/devices" / f"{domain[-4:]}:{rest}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "numa_node").write_text(f"{card.numa}\n")
