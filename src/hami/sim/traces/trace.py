"""What a replay is made of: machines, and jobs that arrive and leave. Knows no file format but its own.

A trace in our own form is a text of JSON lines, one object each: ``{"node": {...}}`` and
``{"pod": {...}}`` with the fields of `Machine` and `Job`.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from hami.model.errors import Malformed

MOST, MOST_CARDS = 10**12, 1024
"""No host, card or time is larger, and no machine has more cards: what is, is a slip, or milli of milli."""

UNKNOWN = 10**9
"""Milli-CPU and MiB of a host nobody has measured: no limit."""


class Machine(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node. Where a trace speaks of shares of a GPU only, a card has 1000 units of memory."""

    name: str
    cpu_milli: int
    mem_mib: int
    """Host memory."""
    cards: int
    model: str = "GPU"
    card_mem: int = 1000
    """MiB of each card, or 1000."""
    card_core: int = 100
    card_slots: int = 1000


class Job(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A pod. `card_mem` is of each of its `cards`; times are seconds."""

    name: str
    cpu_milli: int = 0
    mem_mib: int = 0
    cards: int = 0
    card_mem: int = 0
    card_core: int = 0
    models: tuple[str, ...] = ()
    """Card models it accepts; empty accepts any."""
    arrives: float = 0.0
    leaves: float | None = None
    card_percent: int = 0
    """In place of `card_mem`: percent of the memory of whichever card it gets."""

    @property
    def shape(self) -> tuple[int, int, int, int, int, int, tuple[str, ...]]:
        """Jobs of one shape fit alike."""
        size = self.card_mem, self.card_percent, self.card_core
        return self.cpu_milli, self.mem_mib, self.cards, *size, self.models


class Trace(Struct, frozen=True):
    machines: tuple[Machine, ...]
    jobs: tuple[Job, ...]


class _Line(Struct, forbid_unknown_fields=True):
    node: Machine | None = None
    pod: Job | None = None


def decode(text: str, source: str) -> Trace:
    """A trace from our own JSON lines. Raises `Malformed` with the line's number."""
    machines, jobs = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as fault:
            raise Malformed(f"{source}:{number}", line, f"a JSON line with node or pod ({fault})") from None
        if found.node is not None:
            machines.append(checked_machine(found.node, f"{source}:{number}"))
        if found.pod is not None:
            jobs.append(checked_job(found.pod, f"{source}:{number}"))
    return Trace(tuple(machines), tuple(jobs))


def encode(trace: Trace) -> str:
    """The same as JSON lines, machines first."""
    lines = [msgspec.json.encode({"node": machine}) for machine in trace.machines]
    lines += [msgspec.json.encode({"pod": job}) for job in trace.jobs]
    return b"".join(line + b"\n" for line in lines).decode()


def checked_machine(machine: Machine, path: str) -> Machine:
    """`machine`, or `Malformed` where a number cannot be meant."""
    _within(path, 0, MOST, cpu_milli=machine.cpu_milli, mem_mib=machine.mem_mib)
    _within(path, 0, MOST_CARDS, cards=machine.cards)
    _within(path, 1, MOST, card_mem=machine.card_mem, card_core=machine.card_core, card_slots=machine.card_slots)
    return machine


def checked_job(job: Job, path: str) -> Job:
    """`job`, or `Malformed` where a number cannot be meant."""
    _within(path, 0, MOST, cpu_milli=job.cpu_milli, mem_mib=job.mem_mib, card_mem=job.card_mem)
    _within(path, 0, MOST_CARDS, cards=job.cards)
    _within(path, -MOST, MOST, arrives=job.arrives, leaves=job.leaves or 0.0)
    for field, percent in (("card_core", job.card_core), ("card_percent", job.card_percent)):
        if not 0 <= percent <= 100:
            raise Malformed(f"{path}.{field}", percent, "a percentage of a card, 0 to 100")
    if job.card_mem and job.card_percent:
        raise Malformed(f"{path}.card_percent", job.card_percent, "either card_mem or card_percent")
    if job.leaves is not None and job.leaves < job.arrives:
        raise Malformed(f"{path}.leaves", job.leaves, f"not before it arrives, at {job.arrives}")
    return job


def one_of_each_name(names: Iterable[str], path: str) -> None:
    """Refuse two things of one name: the second would take the first one's place."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Malformed(path, name, "each name once")
        seen.add(name)


def sorted_by_arrival(jobs: Sequence[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: (job.arrives, job.name))


def _within(path: str, low: int, high: int, **numbers: float) -> None:
    for name, value in numbers.items():
        if not low <= value <= high:
            raise Malformed(f"{path}.{name}", value, f"{low} or more" if value < low else f"{high} or less")
