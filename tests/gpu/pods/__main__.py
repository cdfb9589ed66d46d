"""The whole chain on this machine's card: Kubernetes, webhook, scheduler, agent, kubelet, containerd, tenants' pods.

    python3 tests/gpu/pods [--bundle build/gpu-bundle] [--simulated] [--control] [--out FOLDER] [--only STEP,...]

With --bundle it needs an NVIDIA driver, root, xz and this Python, no network and no toolkit; without, a checkout after
`make setup-lab`. --simulated proves this program on a machine without a card. Prints a row a check, writes pods.json,
pods.log and the lab's logs; `tests/gpu/pods/page.py pods.json` makes docs/reference/gpu-chain.md of it.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import bundle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="folder that `make gpu-bundle` filled")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--control", action="store_true", help="with a library that limits nothing: checks must fail")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default="", help="steps, by name, with commas")
    parser.add_argument("--musl", type=Path, help="folder that tests/node/musl.py filled: a program and its loader")
    parser.add_argument("--budget", type=float, default=1e9, help="no step begins after so many seconds")
    chosen = parser.parse_args()
    if os.geteuid():
        raise SystemExit("a kubelet needs root")
    if chosen.bundle and bundle.unpacked_in() is None:
        bundle.start_again(chosen.bundle, Path(tempfile.mkdtemp(prefix="hami-bundle-", dir="/tmp")))
    import chain  # what it imports may have come with the bundle

    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="hami-pods-", dir="/tmp") as work,
            (chosen.out / "pods.log").open("w") as log,
        ):
            return chain.run(chosen, Path(work), log)
    finally:
        bundle.remove()


if __name__ == "__main__":
    sys.exit(main())
