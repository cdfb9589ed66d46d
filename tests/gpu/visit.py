#!/usr/bin/env python3
"""All proofs on a card in one visit, in parts that each end within ten minutes; for a machine that is lent by the hour.

    make gpu-bundle ARGS="--python 3.12 --without numpy"        # before: what the machine with the card lacks
    python3 tests/gpu/visit.py PART [--out FOLDER] [--most SECONDS] [--only STEP,...] [--bundle FOLDER]
                                    [--simulated FOLDER]        # a rehearsal, with that Python
    python3 tests/gpu/visit.py --list                           # parts, steps, seconds, what each needs

PART is `one` (tenants one at a time), `several` (tenants under a broker), `torch` (PyTorch, overhead, ways round),
`chain` (Kubernetes, commands for users) or `cards` (where there are two). What one step has found is kept when a later
one fails or time is up: after each FOLDER/PART.tar.gz is written anew, with every JSON and log, and FOLDER/PART.log has
what was printed.
Needs Python 3.11, gcc and a driver; `chain` root too. Exit status: 0 all steps held, 1 one did not, 2 wrong use.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "pods"))
import bundle  # noqa: E402  beside this, standard library only

BUNDLE = HERE.parent.parent / "build" / "gpu-bundle"
OWN_S = 20
"""Until the first step begins: archives are unpacked."""
GRACE_S = 10
"""For a step that was told to stop: it takes down what it started."""


@dataclass(frozen=True)
class Step:
    """A command, and the seconds that it took on an H200 with 16 cores; in its folder it leaves JSON and logs."""

    name: str
    seconds: int
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Archives of the bundle that are unpacked for it."""
    simulated: tuple[str, ...] = ()
    """What more it is told where the card is simulated."""


def script(name: str, seconds: int, file: str, *words: str, needs: tuple[str, ...] = ()) -> Step:
    simulated = ("--simulated", "{simulated}") if file.endswith(".py") else ("--simulated",)
    return Step(name, seconds, (str(HERE / file), "--out", ".", *words), needs, simulated)


PYTHON = ("python.tar.xz",)
INSTALLED = ("python.tar.xz", "hami.tar.xz")
CHECK = ("-m", "hami", "limits", "check", "-o", "json")
PODS = "whole_card,sizes,memory,killed,seen,resized,full_card,shares,evading"
PARTS: dict[str, tuple[Step, ...]] = {
    "one": (
        script("shares", 400, "limits.py", "--only", "shares"),
        script("rest", 145, "limits.py", "--only", "names,loans,at_once,kills,init,fill"),
    ),
    "several": (
        script("turns", 240, "broker.py", "--only", "turns", "--seconds", "4", needs=PYTHON),
        script("others", 140, "broker.py", "--only", "idle,returning,priority", needs=PYTHON),
    ),
    "torch": (
        script("torch", 340, "broker.py", "--only", "single,torch,paired,path", "--most", "240", needs=PYTHON),
        script("overhead", 50, "limits.py", "--only", "overhead"),
        script("ways", 120, "ways_round.py"),
    ),
    "chain": (
        script("pods", 160, "pods", "--bundle", "{bundle}", "--only", PODS, "--budget", "150"),
        *(Step(f"check-{number}", 60, CHECK, INSTALLED) for number in (1, 2)),
        script("live", 60, "broker.py", "--only", "live,cost", needs=PYTHON),
        script("seen", 70, "seen.py", needs=PYTHON),
        script("tables", 10, "export_tables.py"),
    ),
    "cards": (script("cards", 110, "two_cards.py", needs=PYTHON),),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--list", action="store_true", help="what there is to do, and for how long")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--most", type=float, default=590, help="seconds for all of it (default 590)")
    parser.add_argument("--only", default="", help="steps, by name, with commas")
    parser.add_argument(
        "--simulated", type=Path, help="folder with the simulated libraries; HAMI_SIM_CARDS says what they show"
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="folder that `make gpu-bundle` filled")
    chosen = parser.parse_args(words)
    if chosen.list:
        print(listed())
        return 0
    if chosen.part is None:
        parser.error(f"which part? {', '.join(PARTS)}; --list tells what they do")
    until = time.monotonic() + chosen.most
    only = set(filter(None, chosen.only.split(",")))
    unknown = only - {step.name for step in PARTS[chosen.part]}
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} is no step of {chosen.part}; --list names them")
    steps = [step for step in PARTS[chosen.part] if not only or step.name in only]
    chosen.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="hami-visit-", dir="/tmp") as work,
        (chosen.out / f"{chosen.part}.log").open("w") as log,
    ):
        kept = chosen.out / f"{chosen.part}.tar.gz"
        return Visit(steps, kept, Path(work), chosen.bundle.resolve(), chosen.simulated, until, log).make()


def listed() -> str:
    lines = []
    for part, steps in PARTS.items():
        lines.append(f"{part}: {OWN_S + sum(step.seconds for step in steps)} s")
        lines += [f"  {step.name:10} {step.seconds:4} s  {shown(step)}" for step in steps]
    return "\n".join(lines)


def shown(step: Step) -> str:
    return " ".join(step.words).replace(f"{HERE}/", "")


@dataclass
class Visit:
    """One part, from its first step to its last."""

    steps: list[Step]
    kept: Path
    """The archive of what was found."""
    work: Path
    bundle: Path
    simulated: Path | None
    until: float
    """When all of it must have ended, by the monotonic clock."""
    log: TextIO

    def make(self) -> int:
        """1. what the machine lacks, 2. step by step, 3. after each all that was found until then."""
        environment = self.unpack()
        ended: dict[str, object] = {}
        (self.work / "found").mkdir()
        for index, step in enumerate(self.steps):
            left = self.until - GRACE_S - time.monotonic()
            later = sum(each.seconds for each in self.steps[index + 1 :])
            # Who takes longer than he did takes it from what is left over, then from the steps that come last.
            ended[step.name] = self.take(step, min(left, max(left - later, step.seconds * 1.2)), environment)
            (self.work / "found" / "visit.json").write_text(json.dumps(ended, indent=1))
            self.keep()
        failed = [f"{name} ({how})" for name, how in ended.items() if how != 0]
        self.say(f"== {len(ended)} steps, {len(failed)} failed: {', '.join(failed)}")
        return 1 if failed else 0

    def unpack(self) -> dict[str, str]:
        """Only what these steps need: an environment in which their packages are found."""
        begun = time.monotonic()
        wanted = {archive for step in self.steps for archive in step.needs}
        bundle.unpack(self.bundle, self.work, sorted(wanted))
        sites = [str(self.work / archive.partition(".")[0] / "site") for archive in INSTALLED if archive in wanted]
        path = os.pathsep.join([*sites, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.say(f"== unpacked {len(wanted)} archives in {time.monotonic() - begun:.0f} s")
        fixed = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if self.simulated:
            fixed |= {"LD_LIBRARY_PATH": str(self.simulated), "PROBE_SIMULATED": "1"}
        return {**os.environ, **fixed}

    def take(self, step: Step, most: float, environment: dict[str, str]) -> object:
        """Its exit status, or why there is none."""
        if most < 1:
            self.say(f"== {step.name}: not begun, time was up")
            return "not begun, time was up"
        self.say(f"== {step.name}: takes {step.seconds} s, at most {most:.0f}")
        begun = time.monotonic()
        folder = self.work / "found" / step.name
        folder.mkdir()
        words = [*step.words, *(step.simulated if self.simulated else ())]
        command = [sys.executable, *(word.format(bundle=self.bundle, simulated=self.simulated) for word in words)]
        with (folder / "printed").open("w") as printed:
            running = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            reader = threading.Thread(target=self.follow, args=(running, printed))
            reader.start()
            how = ended(running, most)
            reader.join()
        self.say(f"== {step.name}: {time.monotonic() - begun:.0f} s, exit status {how}")
        return how

    def follow(self, running: "subprocess.Popen[str]", printed: TextIO) -> None:
        """What it prints, as it does."""
        assert running.stdout is not None
        with running.stdout:
            for line in running.stdout:
                printed.write(line)
                self.say(line.rstrip("\n"))

    def say(self, line: str) -> None:
        print(line, flush=True)
        print(line, file=self.log, flush=True)

    def keep(self) -> None:
        """Whole at every instant: a visit may end between any two lines."""
        fresh = self.kept.with_suffix(".partial")
        with tarfile.open(fresh, "w:gz") as archive:
            archive.add(self.work / "found", arcname=".")
        fresh.replace(self.kept)


def ended(running: "subprocess.Popen[str]", most: float) -> object:
    """Its exit status. When time is up it is told to stop, then it is ended with all that it started."""
    for told, wait in ((signal.SIGINT, most), (signal.SIGKILL, GRACE_S / 2)):
        try:
            return running.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, told)
    running.wait()
    return "none, time was up"


if __name__ == "__main__":
    raise SystemExit(main())
