"""An extender that decides nothing, a peer of `benchmarks.throughput`: what kube-scheduler and the protocol cost.

    python -m benchmarks.echo --certificate FILE --key FILE --authority FILE --port PORT

It serves as `hami scheduler` does (same loop, same HTTP library, same mutual TLS), says yes to every
node, has no preference, and leaves the bind to kube-scheduler. Nothing that decides can be faster.
"""

import asyncio
import ssl

import click
import msgspec
import uvloop
from aiohttp import web
from msgspec import Raw, Struct, field

from hami.scheduler.edge.tls import server_context


class Asked(Struct):
    """The names as they came; the pod is not even looked at."""

    names: Raw = field(name="NodeNames", default=Raw(b"[]"))


decode = msgspec.json.Decoder(Asked).decode


async def answer(request: web.BaseRequest) -> web.Response:
    body = await request.read()
    said = b'{"NodeNames":%s}' % bytes(decode(body).names) if request.path == "/filter" else b"[]"
    return web.Response(body=said, content_type="application/json")


async def serve(context: ssl.SSLContext, port: int) -> None:
    runner = web.ServerRunner(web.Server(answer, access_log=None, keepalive_timeout=120.0))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    await asyncio.Event().wait()


@click.command()
@click.option("--certificate", required=True)
@click.option("--key", required=True)
@click.option("--authority", required=True, help="Whose client certificates are asked for.")
@click.option("--port", required=True, type=int)
def main(certificate: str, key: str, authority: str, port: int) -> None:
    """Serve until killed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(server_context(certificate, key, authority), port))


if __name__ == "__main__":
    main()
