"""docs/reference/gpu-chain.md from what runs have saved: `python3 tests/gpu/pods/page.py pods.json [later.json ...]`.

A step that a later run has taken again is shown as that run found it; the column "run" says which run a row is of.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TITLES = {
    "whole_card": "A whole card",
    "by_cdi": "How the card comes in",
    "two_on_a_card": "Two pods on one card",
    "sizes": "What a slice sees",
    "memory": "Memory",
    "killed": "kill -9",
    "seen": "Seen from the node",
    "resized": "Resized while it runs",
    "full_card": "A full card",
    "shares": "Shares of time",
    "ways_of_starting": "A pod that tries to get out",
    "evading": "What no library can hold: seen from outside",
    "restarts": "Restarts and an upgrade under running pods",
    "torch": "Unmodified PyTorch",
    "by_environment": "How the card comes in, without CDI",
}
HEAD = """\
# The whole chain on a real card

Kubernetes {kubernetes}, webhook, scheduler, agent, kubelet, containerd on one machine with a card: {card}, {mem} MiB,
driver {driver}, {cores} cores, kernel {kernel}, cgroup {cgroup}; no network, no NVIDIA toolkit. Made by

    make gpu-bundle ARGS="--python 3.12 --without numpy"  # here
    python3 tests/gpu/pods --bundle build/gpu-bundle      # there, as root; writes pods.json, pods.log, the lab's logs

and written down by `tests/gpu/pods/page.py` from the JSON that the runs saved, rows that failed among them.
Unpacked in {unpacked} s; then {up}.

Pods are submitted with plain specs (an image, a command, `nvidia.com/*` limits); they ask for no rights and no runtime
class, and but for two steps that say so for no volumes. They come in through the webhook, are placed by a stock
kube-scheduler that asks ours, and started by the kubelet; every figure is measured by a program inside them, or by the
card's NVML on the node. Scheduler and agent run as processes of the machine, each under its own account and rights, as
their Deployment and DaemonSet would run them. The agent runs with `--device-list-strategy cdi-cri`
([adr/0009](../adr/0009-driver-by-cdi.md)), `--unregistered stop` and `gpuCorePolicy: force`.
`python3 tests/gpu/pods --simulated` runs the same steps on a simulated card. "A full card" is what two pods of 30 GB
and a third are on a card of 80 GB: each asks 42 % of this one, so two fit and the third does not.

Found by these runs, and mended between them: `/usr/bin/nvidia-smi` may be a script that leads to where the driver lies
(the first try, before run 1); programs that only ask NVML saw the whole card (run 1, now in `sizes` of run 2); an
agent's metrics told contexts as modules; the end of an ordinary program was logged as a fault; a program that
registers, and then takes memory through entry points which it read from the driver's own symbol table,
was reported and ran on (run 1; ended by `--exceeded stop` in run 3).

Not shown here:

- NVLink between the cards of a whole-card pod (3.15): this machine has one card.
- An image with PyTorch in it (1.3): none can be pulled. The packages come through read-only hostPath volumes; PyTorch
  itself, and the program, are as everywhere.
- A static program that uses the driver: a static glibc cannot, CUDA answers 304. A copy of the loader that knows no
  preload file stands for it.

Corrected in the program after run 1: with kernels of 0.1 ms the tenant capped at 70 got 68.3 %, 0.2 less than the
tolerance, and that row was not judged; one of the seven writes, a device node of another card, proves nothing on a
machine with one card.

In run 5 kernels of 0.1 ms had 29.4 and 61.1 %: what two tenants have without turns, which one whose host begins slowly
never came into. Mended then; run 6 has them anew.

"row" is that of our acceptance table. "-" in the last column but one: shown for comparison, or not run.
The log of each run is beside this page: {logs}.
"""


def main(names: list[str]) -> int:
    runs = [json.loads(Path(name).read_text()) for name in names]
    print("\n".join(page(runs)))
    return 0


def page(runs: list[dict[str, Any]]) -> Iterator[str]:
    first = runs[0]
    card = first["card"]
    up = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in first["up_s"].items() if name != "card")
    yield HEAD.format(
        kubernetes=first.get("kubernetes", "1.34.4"),
        card=card["name"],
        mem=card["mem_mib"],
        driver=first["driver"],
        cores=first["cores"],
        kernel=first["kernel"],
        cgroup=first["cgroup"],
        logs=", ".join(f"[run {at}](gpu-chain-{at}.log)" for at in range(1, len(runs) + 1)),
        unpacked=first["unpacked_s"],
        up=up,
    )
    yield from (f"Run {at}: {run['date']}, commit {run['commit']}." for at, run in enumerate(runs, 1))
    for step, title in TITLES.items():
        found = [(at, run) for at, run in enumerate(runs, 1) if rows_of(run, step)]
        if found:
            at, run = found[-1]
            yield from (
                "",
                f"## {title}",
                "",
                "| row | what | measured | expected | | run |",
                "| --- | --- | --- | --- | --- | --- |",
            )
            yield from (line(row, at) for row in rows_of(run, step))


def rows_of(run: dict[str, Any], step: str) -> list[dict[str, Any]]:
    """A step that was not begun is a row of its name."""
    return [row for row in run["rows"] if (row["name"] if row["name"] in TITLES else row["step"]) == step]


def line(row: dict[str, Any], run: int) -> str:
    verdict = {True: "holds", False: "**fails**", None: "-"}[row["ok"]]
    cells = (row["row"], row["name"], row["measured"], row["expected"], verdict, str(run))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
