"""The agent's broker in a process of its own, for tests that kill it: ``agent.py ROOT [NVML [report|stop]]``.

The last word is what is done about slices that hold more than their limit; `stop` also gives nobody time to register,
and looks for the pods of processes in ``ROOT/proc``. Each folder of ROOT with a policy is a grant, of the pod with that
uid. ``ROOT/state`` is what it knows, as JSON, written anew every 50 ms.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from hami.agent.broker import usage
from hami.agent.broker.look import Look
from hami.agent.broker.server import Broker
from hami.agent.broker.strangers import Action
from hami.agent.broker.tenants import Tenant
from hami.model.ask import PodRef
from hami.model.ids import PodUid
from hami.vendors.nvidia.driver import Driver
from hami.vendors.nvidia.worker import Worker


async def main(root: Path, nvml: str | None, exceeded: str) -> None:
    def tenants() -> Iterator[Tenant]:
        for folder in sorted(root.iterdir()):
            if (folder / "policy").exists():
                yield Tenant(folder.name, PodRef("default", folder.name, PodUid(folder.name)), "main")

    broker = Broker(tenants, lambda key: root / key)
    driver = Driver(Path(nvml) if nvml else None)
    if nvml:
        driver.open()
    action: Action = "stop" if exceeded == "stop" else "report"
    more: dict[str, Any] = {"exceeded": action, "grace": 0.0, "proc": root / "proc"} if action == "stop" else {}
    look = Look(broker, driver, Worker("processes"), tell=lambda *_: None, **more)

    async def tell() -> None:
        while True:
            values = [
                (family.name, dict(labels), value)
                for family, labels, value in usage.samples(broker, look, time.monotonic())
            ]
            fresh = root / f".state.{os.getpid()}"
            fresh.write_text(json.dumps({"pid": os.getpid(), "at": time.monotonic(), "samples": values}))
            fresh.replace(root / "state")
            await asyncio.sleep(0.05)

    await asyncio.gather(broker.run(), tell(), *([look.run()] if nvml else []))


if __name__ == "__main__":
    words = sys.argv[2:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `hami agent` does
        runner.run(main(Path(sys.argv[1]), words[0] if words else None, words[1] if len(words) > 1 else "report"))
