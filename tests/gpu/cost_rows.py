"""Sections of `limits.py`: what the library costs, and what killed processes leave behind."""

import signal
import statistics
import time

from bench import Bench, finish

PROCESSES = 5
"""Where a process's code and kernels lie moves what a launch costs it by some ten ns: the middle one counts."""


def overhead(bench: Bench) -> None:
    """Host time that the library adds."""
    count, processes = (200_000, 1) if bench.quick else (1_000_000, PROCESSES)
    for label, kernels, env, most in (
        ("unlimited slice", 1, bench.environment(0, memory="64g"), 10),
        ("limit 99, not blocked", 1, bench.environment(99), 40),
        ("limit 99, a dozen kernels in turn", 12, bench.environment(99), 40),
    ):
        each = [bench.probe("launches", count // processes, kernels, env=env) for _ in range(processes)]
        got = sorted(each, key=lambda one: float(one["added_ns"]))[processes // 2]
        ok = got["added_ns"] <= most and not any(one["same_address"] for one in each)
        bench.add(
            "overhead",
            f"null launch, {label}",
            f"{got['added_ns']:+.0f} ns of {got['direct_ns']:.0f}",
            f"<= {most} ns",
            ok,
            **got,
            processes=[one["added_ns"] for one in each],
        )
    got = bench.probe("allocs", 4000, env=bench.environment(memory="16g"))
    change = got["added_ns"] / got["direct_ns"] * 100
    bench.add("overhead", "cuMemAlloc + cuMemFree, 2 MiB", f"{change:+.2f} %", "<= 1 %", change <= 1, **got)


def init(bench: Bench) -> None:
    """64 processes start CUDA at once. Another holds the card open meanwhile: waking a sleeping card takes seconds."""

    def together(env: dict[str, str]) -> float:
        running = [bench.start(bench.path, "init", env=env) for _ in range(64)]
        return statistics.median(finish(each).get("init_ms", float("nan")) for each in running)

    holder = bench.start(bench.path, "run", "sync", 120, 1_000_000, 50_000_000, env=bench.environment())
    time.sleep(3)
    one = [bench.probe("init", env=env)["init_ms"] for env in (bench.environment(), bench.environment(50, memory="4g"))]
    plain, ours = [], []
    for _ in range(2):
        plain.append(together(bench.environment()))
        ours.append(together(bench.environment(50, memory="4g")))
    told = bench.probe("init", env=bench.environment(50, memory="4g") | {"LIBCUDA_LOG_LEVEL": "3"}).get("stderr")
    holder.kill()
    holder.communicate()
    added = min(ours) - min(plain)
    bench.add(
        "init",
        "64 x cuInit at once, median",
        f"{min(plain):.0f} -> {min(ours):.0f} ms",
        "+ <= 5 ms",
        added <= 5,
        plain=plain,
        ours=ours,
        one=one,
        told=told,
    )


def kills(bench: Bench) -> None:
    """Processes killed at random points, eight at a time, give their memory back, and nobody waits for them."""
    env = bench.environment(50, memory="4g")
    slowest, rounds = 0.0, 5 if bench.quick else 25
    usual = statistics.median(timed(bench, env)[0] for _ in range(3))
    for index in range(rounds):
        victims = [bench.start(bench.path, "mem", "linear", 64, env=env) for _ in range(8)]
        for number, victim in enumerate(victims):
            time.sleep(0.005 + 0.2 * (((index * 8 + number) * 0.618) % 1))
            victim.send_signal(signal.SIGKILL)
        took, taken = timed(bench, env)
        slowest = max(slowest, took)
        for victim in victims:
            victim.communicate()
        if taken < 3072:
            bench.add("kills", f"after {(index + 1) * 8} kills", f"{taken} MiB", "memory is back", False)
            return
    bench.add(
        "kills",
        f"{rounds * 8} SIGKILLs at random points",
        f"neighbour {slowest:.2f} s, {usual:.2f} without",
        "memory back, <= 1 s more",
        slowest <= usual + 1,
    )


def timed(bench: Bench, env: dict[str, str]) -> tuple[float, int]:
    """Seconds that a neighbour takes from its start to its end, and the MiB it got."""
    begun = time.monotonic()
    got = bench.probe("mem", "linear", 256, env=env)
    return time.monotonic() - begun, got.get("taken_mib", 0)
