"""What replays came to, side by side: means over seeds, and whether a difference is more than chance."""

from collections.abc import Iterable, Sequence
from math import erfc, sqrt
from statistics import fmean, stdev

from msgspec import Struct

from hami.sim.traces.replay import Outcome


class Row(Struct, frozen=True):
    """One policy over all seeds."""

    policy: str
    seeds: int
    allocation: float
    spread: float
    """Standard deviation over seeds."""
    fragmented: float
    placed: float
    failed: float
    seconds: float
    wait: float | None
    """Mean wait in seconds, with departures."""
    wait_p95: float | None
    against: float | None = None
    """Points above the last policy of the list, mean over the same seeds."""
    sigmas: float | None = None
    """That difference in standard errors (paired)."""


class Replays(Struct, frozen=True):
    """Several replays, as `hami simulate -o json` prints them; of a single one it prints the outcome alone."""

    runs: tuple[Outcome, ...]
    policies: tuple[Row, ...]


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """One row a policy, in the order they come; each compared with the last one."""
    by_policy: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.policy, []).append(outcome)
    if not by_policy:
        return []
    last = list(by_policy)[-1]
    return [_row(policy, runs, None if policy == last else by_policy[last]) for policy, runs in by_policy.items()]


def chance(sigmas: float) -> float:
    """How probable a difference of so many standard errors or more is by chance alone, two-sided, for many seeds."""
    return erfc(abs(sigmas) / sqrt(2))


def _row(policy: str, runs: Sequence[Outcome], others: Sequence[Outcome] | None) -> Row:
    values = [run.gpu_allocation_percent for run in runs]
    against, sigmas = _paired(runs, others) if others else (None, None)
    waits = [run.waits for run in runs if run.waits is not None]
    return Row(
        policy=policy,
        seeds=len(runs),
        allocation=fmean(values),
        spread=stdev(values) if len(values) > 1 else 0.0,
        fragmented=fmean(run.gpu_fragmented_percent for run in runs),
        placed=fmean(run.placed for run in runs),
        failed=fmean(run.failed for run in runs),
        seconds=fmean(run.seconds for run in runs),
        wait=fmean(one.mean for one in waits) if waits else None,
        wait_p95=fmean(one.p95 for one in waits) if waits else None,
        against=against,
        sigmas=sigmas,
    )


def _paired(runs: Sequence[Outcome], others: Sequence[Outcome]) -> tuple[float | None, float | None]:
    theirs = {run.seed: run.gpu_allocation_percent for run in others}
    differences = [run.gpu_allocation_percent - theirs[run.seed] for run in runs if run.seed in theirs]
    if not differences:
        return None, None
    mean = fmean(differences)
    if len(differences) < 2 or (spread := stdev(differences)) == 0:
        return mean, None
    return mean, mean / (spread / sqrt(len(differences)))
