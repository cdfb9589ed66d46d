"""Sections of `limits.py`: shares of time, of one program and of two without a broker."""

import re
from typing import Any

from bench import Bench, finish, spread, steady, unlimited

SHORT = (2_000, 10_000)
QUEUED = (
    ("spin", 100_000),
    ("spin", 1_000_000),
    ("spin", 20_000_000),
    ("spin", 50_000_000),
    ("sync", 5_000_000),
    ("graph1", 1_000_000),
    ("graph10", 100_000),
    ("graph1000", 10_000),
    ("coop", 100_000),
    ("ex", 100_000),
    ("ptds", 100_000),
    ("memset", 256 << 20),
    ("copy", 256 << 20),
)


def short(bench: Bench, limits: tuple[int, ...]) -> None:
    """Kernels that take some percent more in one process than in the next: each process against its own queue."""
    for ns in SHORT:
        for limit in limits:
            if not re.search(bench.match, f"spin {ns} at {limit}"):
                continue
            own = against_itself(bench, ns, 0, limit)
            want = min(limit, own["alone"])
            bench.add(
                "shares",
                f"spin {ns / 1000:g} us at {limit}",
                f"{own['share']:.2f} (cv {own['cv']:.2f}, no limit {own['alone']:.1f})",
                f"{limit} +- 1, cv <= {EVEN}" if want == limit else f"{want:.1f} +- 1, its host's best",
                abs(own["share"] - want) <= 1 and (own["cv"] <= EVEN or want != limit),
                **own,
            )


def against_itself(bench: Bench, ns: int, host_ns: int, limit: int) -> dict[str, float]:
    """What a process has of the card, and would have without a limit, percent, by what its launches take in a queue."""
    got = bench.probe("share", ns, bench.seconds, host_ns, env=bench.environment(limit))
    looks = got["before"], got["after"]
    full_ns, alone_ns = (sum(look[key] for look in looks) / 2 for key in ("full_ns", "alone_ns"))
    return {
        "share": steady(got, 1.0) * full_ns / 1e7,
        "alone": full_ns / alone_ns * 100,
        "cv": spread(got, 1.0),
        "full_ns_before": looks[0]["full_ns"],
        "full_ns_after": looks[1]["full_ns"],
    }


EVEN = 3
"""Percent that the seconds of a limited program may differ by (standard deviation of their launches)."""


def most_uneven(work: str, ns: int, per_second: float) -> float | None:
    """The same, or one launch where so few go into a second; None: they are longer than 20 ms."""
    if work in ("spin", "sync") and ns > 20_000_000:
        return None
    return max(EVEN, 100 / per_second) if per_second else EVEN


def shares(bench: Bench) -> None:
    """One tenant: share of unlimited throughput at a limit."""
    limits = (20, 50, 80) if bench.quick else (5, 20, 50, 80, 95)
    short(bench, limits)
    for work, ns in QUEUED:
        if bench.quick and (work, ns) in (("spin", 50_000_000), ("graph1", 1_000_000), ("ex", 100_000)):
            continue
        chosen = [limit for limit in limits if re.search(bench.match, f"{work} {ns} at {limit}")]
        if not chosen:
            continue
        solo = unlimited(bench, work, ns)
        for limit in chosen:
            long = work == "spin" and ns >= 20_000_000
            seconds = max(bench.seconds, 11 if limit < 50 else 6) if long else bench.seconds
            got = bench.probe("run", work, seconds, ns, env=bench.environment(limit))
            share = steady(got, 1.0) / solo * 100 if solo else 0.0
            first = sum(got.get("tenths", [])[:10]) / solo * 100 if solo else 0.0
            detail = {"first_second": round(first, 1), "cv": round(spread(got, 1.0), 2), "solo": round(solo, 1)}
            if "error" in got:
                detail |= {"error": got}
            most = most_uneven(work, ns, share * solo / 100)
            settled = most is None or (detail["cv"] <= most and abs(first - limit) <= 10)
            bench.add(
                "shares",
                f"{work} 256 MiB at {limit}" if work in ("memset", "copy") else f"{work} {ns / 1000:g} us at {limit}",
                f"{share:.2f} (1st s {first:.0f}, cv {detail['cv']})",
                f"{limit} +- 1" + (f", 1st s +- 10, cv <= {most:.0f}" if most is not None else ""),
                abs(share - limit) <= 1 and settled,
                **detail,
            )
    broken = bench.probe(
        "run", "spin", bench.seconds, 100_000, env=bench.environment(20) | {"GPU_CORE_UTILIZATION_POLICY": "disable"}
    )
    share = steady(broken, 1.0) / unlimited(bench, "spin", 100_000) * 100
    bench.add("shares", "control: limiter off at 20", f"{share:.1f}", "> 21", share > 21)


def hostbound(bench: Bench) -> None:
    """Programs bound by their host: speed is min(1, limit / occupied) of solo."""
    limits = (20, 50) if bench.quick else (20, 50, 80)
    for work, ns, host in (
        ("mixed", 10_000, 12_000),
        ("spin", 2_000, 12_000),
        ("spin", 8_000, 12_000),
        ("spin", 20_000, 12_000),
    ):
        if not re.search(bench.match, f"{work} {ns} + {host}"):
            continue
        mixed = None if work == "spin" else (unlimited(bench, work, ns), unlimited(bench, work, ns, host))
        for limit in limits:
            if mixed is None:
                own = against_itself(bench, ns, host, limit)
                used, occupied = own["share"], own["alone"]
            else:
                rate = steady(bench.probe("run", work, bench.seconds, ns, host, env=bench.environment(limit)), 1.0)
                used, occupied = (each / mixed[0] * 100 for each in (rate, mixed[1]))
            ideal, speed = min(100.0, limit / occupied * 100), used / occupied * 100
            bench.add(
                "hostbound",
                f"{work} {ns / 1000:g} us + {host / 1000:g} us host at {limit}",
                f"{speed:.1f} (ideal {ideal:.1f})",
                f"occupied <= {limit + 1}, >= 98 %",
                used <= limit + 1 and speed >= 0.98 * ideal,
                occupied=used,
                solo_occupied=occupied,
            )


FULL_BLOCKS = 4224
"""Blocks of 32 threads that fill a card of 132 multiprocessors: kernels of so many do not run side by side."""


def overlapping(bench: Bench, name: str, ns: int, limits: tuple[int, ...], *program: object) -> None:
    """Rows of one program of several streams: its share of what it has without a limit, from its second second on."""
    chosen = [limit for limit in limits if re.search(bench.match, f"{name} {ns} at {limit}")]
    if not chosen:
        return
    full = steady(bench.probe(*program, env=bench.environment()), 1.0)
    at_once = full * ns / 1e9
    bench.add("streams", f"{name}, {ns / 1000:g} us, no limit", f"{at_once:.2f} kernels at once", "", None)
    for limit in chosen:
        got = bench.probe(*program, env=bench.environment(limit))
        held = steady(got, 1.0)
        share = held / full * 100
        bench.add(
            "streams",
            f"{name}, {ns / 1000:g} us at {limit}",
            f"{share:.1f} (kernels' time {held * ns / 1e7:.1f})",
            f"{limit} +- 1",
            abs(share - limit) <= 1,
            full=full,
            held=held,
            whole_run=got["rate"],
        )


def in_phases(bench: Bench, ns: int, limit: int, phase_ms: int) -> None:
    """All four streams for a while, then one alone: what it occupies, by how many run at once when all do."""
    if not re.search(bench.match, f"in phases {ns} at {limit}"):
        return
    threads = ("streams", 4, 1, bench.seconds, ns, 1)
    at_once = steady(bench.probe(*threads, env=bench.environment()), 1.0) * ns / 1e9
    got = bench.probe(*threads, phase_ms, env=bench.environment(limit))
    occupied = (got["together"] / at_once + got["alone"]) * ns / got["seconds"] / 1e7
    name = f"4 streams and 1 in turn, {phase_ms} ms each, {ns / 1000:g} us at {limit}"
    bench.add("streams", name, f"{occupied:.1f} occupied", f"<= {limit + 1}", occupied <= limit + 1, **got)


def streams(bench: Bench) -> None:
    """Kernels of several streams may run at the same time: a program is charged what it occupies."""
    for ns in (20_000, 100_000, 1_000_000):
        overlapping(bench, "4 streams", ns, (20, 50, 80), "threads", 4, bench.seconds, ns)
    overlapping(bench, "2 streams", 100_000, (50,), "streams", 2, 1, bench.seconds, 100_000, 1)
    overlapping(bench, "4 streams of 1 thread", 100_000, (50,), "streams", 1, 4, bench.seconds, 100_000, 1)
    overlapping(bench, "4 default streams", 100_000, (50,), "streams", 4, 0, bench.seconds, 100_000, 1)
    overlapping(bench, "4 streams that fill it", 100_000, (50,), "streams", 4, 1, bench.seconds, 100_000, FULL_BLOCKS)
    for phase_ms in (200, 1000):
        in_phases(bench, 100_000, 50, phase_ms)


def pair(
    bench: Bench, caps: tuple[int | None, int | None], works: tuple[tuple[str, int, int], tuple[str, int, int]]
) -> list[dict[str, Any]]:
    running = [
        bench.start(
            bench.path,
            "run",
            work,
            bench.seconds + 2,
            ns,
            host,
            env=bench.environment(cap, tenant=f"t{index}"),
        )
        for index, (cap, (work, ns, host)) in enumerate(zip(caps, works, strict=True))
    ]
    return [finish(each) for each in running]


def tenants(bench: Bench) -> None:
    """Two tenants on the card, each capped."""
    for ns in (100_000, 1_000_000):
        native = pair(bench, (None, None), (("spin", ns, 0), ("spin", ns, 0)))
        parts = [steady(each, 2.0) / unlimited(bench, "spin", ns) * 100 for each in native]
        bench.add(
            "tenants",
            f"for comparison: two without limits, {ns / 1000:g} us",
            f"{parts[0]:.1f} {parts[1]:.1f} sum {sum(parts):.1f}",
            "",
            None,
            parts=parts,
        )
    cases = [
        ((30, 70), (("spin", 100_000, 0), ("spin", 100_000, 0))),
        ((30, 70), (("spin", 1_000_000, 0), ("spin", 1_000_000, 0))),
        ((30, 70), (("spin", 10_000, 0), ("spin", 1_000_000, 0))),
        ((30, 70), (("sync", 5_000_000, 0), ("spin", 100_000, 0))),
        ((50, 50), (("spin", 1_000_000, 0), ("spin", 1_000_000, 0))),
        ((10, 90), (("spin", 100_000, 0), ("spin", 100_000, 0))),
    ]
    for caps, works in cases[:3] if bench.quick else cases:
        got = pair(bench, caps, works)
        parts = [steady(each, 2.0) / unlimited(bench, *work) * 100 for each, work in zip(got, works, strict=True)]
        ok = all(abs(part - cap) <= 1.5 for part, cap in zip(parts, caps, strict=True)) and sum(parts) >= 98
        label = " and ".join(f"{work} {ns / 1000:g} us" for work, ns, _ in works)
        bench.add(
            "tenants",
            f"{caps[0]}/{caps[1]}: {label}",
            f"{parts[0]:.1f} {parts[1]:.1f} sum {sum(parts):.1f}",
            "each +- 1.5, sum >= 98",
            ok,
            parts=parts,
        )
