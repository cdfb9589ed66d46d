"""Simulated cards: a YAML description becomes the file that the simulated NVML reads.

`native/sim-nvml` re-reads that file whenever it changes, so a test or a demo can
make a card sick, take it away or give it work while the agent is running on it:

    bench = Bench(tmp_path / "cards", parse("cards: [{model: A100-40}, {model: A100-40}]"))
    bench.xid(0, 79)

Run as a program it compiles one file: ``python -m hami.sim.cards cards.yaml cards.sim``.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from hami.config.files import text
from hami.model.errors import Malformed
from hami.native import SIM_NVML, library
from hami.sim.rack import Event, Fault, Process, Rack, SimCard, check, parse, uuid_of
from hami.sim.rackfile import pci_of, write

__all__ = ["ENVIRONMENT", "Bench", "Event", "Fault", "Process", "Rack", "SimCard", "parse", "write"]

ENVIRONMENT = "HAMI_SIM_CARDS"
"""Names the file to the simulated NVML."""
KEPT_EVENTS = 16
"""For readers that are late; the library itself looks every 20 ms."""

Cell = TypeVar("Cell")


class Bench:
    """A rack whose file is in use: every method changes the cards that running programs see."""

    def __init__(self, path: Path, rack: Rack) -> None:
        check(rack)
        self.path = path
        self.rack = rack
        self._sequence = max((event.sequence for card in rack.cards for event in card.events), default=0)
        # MIG instances made on the former cards of this file would come with it.
        path.with_name(f"{path.name}.mig").unlink(missing_ok=True)
        write(path, rack)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find these cards instead of real ones."""
        return {ENVIRONMENT: str(self.path), "LD_LIBRARY_PATH": str(library(SIM_NVML).parent)}

    def uuid(self, index: int) -> str:
        return uuid_of(self.rack, index)

    def put(self, rack: Rack) -> None:
        """Other cards altogether."""
        check(rack)
        self.rack = rack
        write(self.path, rack)

    def change(self, index: int, **fields: object) -> None:
        """Give one card other values of SimCard's fields."""
        cards = list(self.rack.cards)
        cards[index] = replace(cards[index], **fields)
        self.put(replace(self.rack, cards=cards))

    def pull(self, index: int) -> None:
        """Take a card out of the machine. The others keep their UUIDs and bus ids, their indexes move up."""
        kept = [place for place in range(len(self.rack.cards)) if place != index]
        cards = [replace(self.rack.cards[at], uuid=self.uuid(at), pci=pci_of(self.rack, at)) for at in kept]
        nvlinks, paths = _without(self.rack.nvlinks, kept), _without(self.rack.paths, kept)
        self.put(replace(self.rack, cards=cards, nvlinks=nvlinks, paths=paths))

    def xid(
        self, index: int, xid: int, *, gpu_instance: int | None = None, compute_instance: int | None = None
    ) -> None:
        """Let the driver report an Xid on a card, once."""
        self._sequence += 1
        event = Event(self._sequence, xid, gpu_instance=gpu_instance, compute_instance=compute_instance)
        self.change(index, events=[*self.rack.cards[index].events, event][-KEPT_EVENTS:])

    def fail(self, index: int | None, function: str, result: str = "unknown", delay_ms: int = 0) -> None:
        """Make a function fail on one card, or on all (and for functions without a card) with index None."""
        fault = msgspec.convert({"function": function, "result": result, "delay_ms": delay_ms}, Fault)
        if index is None:
            self.put(replace(self.rack, faults=[*self.rack.faults, fault]))
        else:
            self.change(index, faults=[*self.rack.cards[index].faults, fault])

    def heal(self, index: int | None = None) -> None:
        """Take all faults from the machine; or from a card, as a reset would, and give it back if it was lost."""
        if index is None:
            self.put(replace(self.rack, faults=[]))
        else:
            self.change(index, faults=[], lost=False, recovery="none", remap_pending=False, remap_failed=False)

    def run(self, index: int, processes: Iterable[Process]) -> None:
        """The processes that use a card from now on."""
        self.change(index, processes=list(processes))


def _without(matrix: list[list[Cell]] | None, kept: list[int]) -> list[list[Cell]] | None:
    return None if matrix is None else [[matrix[row][column] for column in kept] for row in kept]


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m hami.sim.cards DESCRIPTION.yaml OUTPUT", file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    try:
        write(target, parse(text(source), source.name))
    except Malformed as fault:
        print(fault, file=sys.stderr)
        return 1
    print(f"export {ENVIRONMENT}={os.fspath(target.absolute())} LD_LIBRARY_PATH={library(SIM_NVML).parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
