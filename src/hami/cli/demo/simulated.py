"""Simulated nodes beside a blocking program: their objects and agents, in a thread with an event loop of its own."""

import asyncio
import threading
from pathlib import Path
from typing import Self

from hami.kube.client import Kube
from hami.sim.agents import Agents
from hami.sim.nodes import Shape, create_nodes


class SimulatedNodes:
    """Node objects and their agents, in a thread with an event loop of its own."""

    def __init__(self, kubeconfig: Path, shapes: dict[str, Shape]) -> None:
        self._kubeconfig = kubeconfig
        self._shapes = shapes
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated nodes", daemon=True)
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(30)
        if self._fault:
            raise self._fault
        return self

    def __exit__(self, *_: object) -> None:
        if self._task:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._live())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as fault:  # handed to the thread that waits for us
            self._fault = fault
        finally:
            self._ready.set()
            self._loop.close()

    async def _live(self) -> None:
        async with await Kube.connect(str(self._kubeconfig)) as kube:
            for name, shape in self._shapes.items():
                await create_nodes(kube, [name], shape)
            self._ready.set()
            await Agents(kube, list(self._shapes)).run()
