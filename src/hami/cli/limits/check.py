"""The checks of `hami limits check`: what a slice may have against what a program gets, one row each.

Two ways. Where the library is in force (in a container), its limit is held against a program that cannot be run without
it: a kernel's own time comes from graphs, which no limit cuts up. Where it is not (on a host), limits are set by hand
and each is held against the same program without one, and controls show that the checks fail with the limiter off.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

from hami.cli.limits.program import DEVICE, Answer, Program, steady
from hami.model.errors import Unavailable

SLACK_MIB = 64
"""What NVML may show beyond the limit: the driver's own rounding."""
MEMORY_ROUTES = ("linear", "async", "own_pool", "vmm_mapped", "managed", "array", "graph_node", "mixed")
HOST_MIB = 4096
"""The limit set by hand on a host."""
UNSEEN = "by the program's own count: there is no NVML here that would show what contexts and modules take"
SETTLE_S = 1.0
OUT_OF_MEMORY = 2


@dataclass(frozen=True)
class Row:
    """One line of the table. `ok` None: not to be judged here, and `why` says so."""

    name: str
    limit: float | None
    measured: float | None
    ok: bool | None
    unit: str = ""
    why: str = ""

    @property
    def title(self) -> str:
        """With the unit, for those who see no column of it."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


@dataclass(frozen=True)
class Limits:
    """What holds here; None: unlimited."""

    mem_mib: int | None
    core_percent: int | None
    idle_is_free: bool = False
    """The percent holds only while others use the card."""


@dataclass(frozen=True)
class Load:
    """What is run: a kind of work the program knows, kernels of `ns` (sets: of so many bytes)."""

    work: str
    ns: int
    host_ns: int = 0

    def __str__(self) -> str:
        if self.work == "memset":
            return f"sets of {self.ns >> 20} MiB"
        length = f"{self.ns // 1000} us" if self.ns < 1_000_000 else f"{self.ns // 1_000_000} ms"
        if self.work.startswith("graph"):
            return f"graphs of {self.work.removeprefix('graph')} kernels of {length}"
        return f"{length} kernels, " + ("a sync after each" if self.work == "sync" else "queued")


@dataclass(frozen=True)
class Step:
    name: str
    run: Callable[[], Row]


HOST_LOADS = {
    Load("spin", 100_000): (20, 50, 80),
    Load("spin", 10_000): (50,),
    Load("spin", 1_000_000): (30,),
    Load("sync", 5_000_000): (50,),
    Load("graph10", 100_000): (50,),
    Load("memset", 256 << 20): (50,),
}
"""And the percents that each is tried at."""


@dataclass(frozen=True)
class Here:
    """The card, and whether the library is in force in a program started as this one was."""

    card: str
    uuid: str
    driver: str
    held: bool
    total_mib: int
    index: int = 0
    """As CUDA counts cards here."""
    cards: int = 1
    """How many there are."""


def here(program: Program, env: dict[str, str], index: int = 0) -> Here:
    """Of a card that CUDA does not count, the first one's, which says how many there are.

    Raises Unavailable, saying what there is not: a driver, a card, or a library that lets programs use it.
    """
    got = program.probe("info", env=env | {DEVICE: str(index)})
    if index and got.get("error") == "cuDeviceGet":
        return here(program, env)
    if "error" in got:
        code, said = got.get("code"), str(got.get("stderr", "")).strip()
        reason = said.splitlines()[0] if said else str(got["error"])
        if code in (None, 0):
            raise Unavailable(f"no card to measure: there is no CUDA driver here ({reason})")
        if code in (100, 3):
            raise Unavailable(f"no card to measure: {got['error']} says {code}")
        if code == OUT_OF_MEMORY:
            raise Unavailable(
                f"no room to measure on card {index}: the limit of memory, or the card, has none left for a context "
                f"({reason})"
            )
        raise Unavailable(f"CUDA is refused here: {got['error']} says {code} ({reason})")
    return Here(
        got["card"], got["uuid"], got["driver"], bool(got["hooked"]), got["total_mib"], index, got.get("cards", 1)
    )


# ---- where the library is in force ----


def held_steps(program: Program, env: dict[str, str], limits: Limits, seconds: float) -> Iterator[Step]:
    """`env`: as programs here are started. Nothing is changed, so this is what a tenant's own program would see."""
    if limits.mem_mib is not None:
        for route in MEMORY_ROUTES:
            yield Step(f"memory: {route}", partial(memory, program, route, limits.mem_mib, env))
    percent = limits.core_percent
    if percent is None:
        return
    if limits.idle_is_free:
        why = "the percent holds only while others use the card (policy default)"
        yield Step("time", lambda: Row("time", percent, None, None, "%", why))
        return
    for load in (Load("spin", 100_000), Load("spin", 1_000_000), Load("sync", 5_000_000)):
        yield Step(f"time: {load}", partial(own_share, program, load, percent, env, seconds=seconds))
    if percent >= UNBLOCKED:
        yield Step("time: launch, not blocked", partial(launch, program, "launch, limited", env, 40))


UNBLOCKED = 90
"""Percent from which empty kernels may be launched one after the other without waiting: the card is busy with
each for about half as long as the host. Below, what is measured is the limit and not the cost of a launch."""


def own_share(program: Program, load: Load, percent: int, env: dict[str, str], *, seconds: float) -> Row:
    """Launches a second times what one takes in a full queue."""
    env = env | program.fixed()
    each = program.probe("queued", load.ns, env=env).get("queued_ns", 0.0)
    got = program.probe("run", load.work, seconds + SETTLE_S, load.ns, env=env)
    share = steady(got, SETTLE_S) * each / 1e9 * 100
    return Row(f"time: {load}", percent, round(share, 2), within(share, percent, got), "%", fault(got))


def past_steps() -> Iterator[Step]:
    """Where there is a policy and no library: nothing holds, whatever limits set by hand would show."""
    why = "programs here run past libvgpu.so: is it in /etc/ld.so.preload, and can this C library load it?"
    yield Step("library in force", lambda: Row("library in force", 1, 0, False, "", why))


def unlimited_steps(why: str) -> Iterator[Step]:
    """Of a card without a limit beside others that have one."""
    yield Step("no limit", lambda: Row("no limit", None, None, None, "", why))


# ---- on a host ----


def host_steps(program: Program, seconds: float) -> Iterator[Step]:
    """Limits set by hand."""
    yield Step("control: no library", partial(control_memory, program))
    for route in MEMORY_ROUTES:
        env = program.environment(memory=f"{HOST_MIB}m")
        yield Step(f"memory: {route}", partial(memory, program, route, HOST_MIB, env))

    @cache
    def solo(load: Load) -> float:
        got = program.probe("run", load.work, seconds + 0.5, load.ns, load.host_ns, env=program.environment())
        return steady(got, 0.5)

    for load, percents in HOST_LOADS.items():
        for percent in percents:
            yield Step(f"time: {load} at {percent}", partial(share, program, load, percent, solo, seconds=seconds))
    yield Step("time: bound by its host", partial(hostbound, program, 50, solo, seconds))
    yield Step("control: limiter off", partial(control_time, program, solo, seconds))
    unlimited, limited = program.environment(memory="64g"), program.environment(99)
    yield Step("launch, unlimited", partial(launch, program, "launch, unlimited", unlimited, 10))
    yield Step("launch, limited", partial(launch, program, "launch, limited", limited, 40))


Solo = Callable[[Load], float]
"""Launches a second without a limit."""


def share(program: Program, load: Load, percent: int, solo: Solo, *, seconds: float) -> Row:
    alone = solo(load)
    got = program.probe("run", load.work, seconds + SETTLE_S, load.ns, env=program.environment(percent))
    part = steady(got, SETTLE_S) / alone * 100 if alone else 0.0
    return Row(f"time: {load} at {percent}", percent, round(part, 2), within(part, percent, got), "%", fault(got))


def hostbound(program: Program, percent: int, solo: Solo, seconds: float) -> Row:
    """8 us kernels with 12 us of host work: the limit takes what is over it, and no more."""
    queued, alone = solo(Load("spin", 8000)), solo(Load("spin", 8000, 12000))
    got = program.probe("run", "spin", seconds + SETTLE_S, 8000, 12000, env=program.environment(percent))
    rate = steady(got, SETTLE_S)
    occupied = rate / queued * 100 if queued else 0.0
    ok = "error" not in got and 0 < occupied <= percent + 1 and rate >= 0.96 * min(alone, queued * percent / 100)
    return Row(f"time: 8 us, 12 us of host work, at {percent}", percent, round(occupied, 2), ok, "%", fault(got))


def control_memory(program: Program) -> Row:
    got = program.probe("mem", "linear", env=program.environment())
    taken = got.get("taken_mib", 0)
    name = "control: without the library memory is not held"
    return Row(name, HOST_MIB, taken, taken > HOST_MIB + SLACK_MIB, "MiB", fault(got))


def control_time(program: Program, solo: Solo, seconds: float) -> Row:
    alone = solo(Load("spin", 100_000))
    env = program.environment(20) | {"GPU_CORE_UTILIZATION_POLICY": "disable"}
    got = program.probe("run", "spin", seconds + SETTLE_S, 100_000, env=env)
    part = steady(got, SETTLE_S) / alone * 100 if alone else 0.0
    return Row("control: with the limiter off time is not held", 20, round(part, 2), part > 21, "%", fault(got))


# ---- both ----


def memory(program: Program, route: str, mem_mib: int, env: dict[str, str]) -> Row:
    """Takes until refused: no more than the limit by NVML (its own count where NVML does not show it), and goes on."""
    got = program.probe("mem", route, env=env)
    held = got.get("nvml_mib", -1.0)
    held = held if held > 0 else float(got.get("taken_mib", 0))
    ok = "error" not in got and 0 < held <= mem_mib + SLACK_MIB and got["refused_with"] == 2 and got["again"] == 1
    ok = ok and got["total_mib"] == mem_mib
    why = fault(got) or (UNSEEN if got.get("nvml_mib", -1.0) < 0 else "")
    return Row(f"memory: {route}", mem_mib, held, ok, "MiB", why)


def launch(program: Program, name: str, env: dict[str, str], most_ns: int) -> Row:
    """Host time that the library adds to a launch, which is read past it from the driver's own symbols."""
    got = program.probe("launches", 200_000, env=env)
    added = got.get("added_ns")
    return Row(name, most_ns, added, "error" not in got and added is not None and added <= most_ns, "ns", fault(got))


def within(part: float, percent: int, got: Answer) -> bool:
    return "error" not in got and abs(part - percent) <= 1


def fault(got: Answer) -> str:
    return f"{got['error']} {got.get('stderr', '')}".strip()[:200] if "error" in got else ""
