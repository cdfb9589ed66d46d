"""The agent's HTTP pages: /healthz, /readyz, and /metrics, which names pods and what they use. Plain, read only."""

import os
from collections.abc import Callable

from aiohttp import web

from hami.model.errors import Unavailable
from hami.observe.health import Health
from hami.observe.metrics import CONTENT_TYPE


def pages(health: Health, metrics: Callable[[], bytes], judge: Callable[[], None] = lambda: None) -> web.Application:
    """An application; `metrics` makes the page at the time of each scrape, `judge` brings `health` up to date."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        judge()
        return web.Response(text=health.text(), status=200 if health.ready else 503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE})

    made = web.Application()
    made.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    return made


async def serve(application: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve it; the port, which the system chooses where 0 was asked. Raises Unavailable where it cannot be had."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as fault:
        await runner.cleanup()
        number = fault.errno or 0  # below 0 where the name has no address; above, asyncio has words of its own for it
        why = os.strerror(number) if number > 0 else fault.strerror or fault
        raise Unavailable(
            f"cannot listen at {host}:{port}: {why}. "
            "--metrics-bind-address names another address; where it is empty there are no pages"
        ) from fault
    address = runner.addresses[0]
    return runner, int(address[1])
