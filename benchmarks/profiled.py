"""Runs a module under cProfile counting CPU time, not waiting: ``python -m benchmarks.profiled OUT -m hami ...``."""

import cProfile
import runpy
import sys
import time


def main() -> None:
    _, out, _, module, *rest = sys.argv
    sys.argv = [module, *rest]
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
    finally:
        profile.dump_stats(out)


if __name__ == "__main__":
    main()
