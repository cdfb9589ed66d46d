"""gRPC over unix sockets: typed handlers and callers for the calls of `wire.proto.services`.

The only place that knows how grpc wants things said; agent and simulated kubelet share it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from hami.wire.proto.services import Call, Request, Response

CHANNEL_OPTIONS: Sequence[tuple[str, str | int]] = (
    # grpc-core names the socket's path as :authority, which Go servers refuse.
    ("grpc.default_authority", "localhost"),
    # A kubelet that restarts is back within seconds; grpc's own backoff goes up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels of one process share connections by default: a socket made anew under the old name would get the old one.
    ("grpc.use_local_subchannel_pool", 1),
)

Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncIterator[Any]]


def channel(socket: str) -> grpc.aio.Channel:
    """A channel to a unix socket, connected when first used."""
    return grpc.aio.insecure_channel(f"unix:{socket}", options=CHANNEL_OPTIONS)


async def ask(to: grpc.aio.Channel, call: Call[Request, Response], request: Request, wait: float) -> Response:
    """One request, one response, within `wait` seconds. Raises `grpc.aio.AioRpcError`."""
    method = to.unary_unary(
        call.path, request_serializer=call.request.SerializeToString, response_deserializer=call.response.FromString
    )
    return await method(request, timeout=wait)


def listen(to: grpc.aio.Channel, call: Call[Request, Response], request: Request) -> AsyncIterator[Response]:
    """A stream of responses; ends by `grpc.aio.AioRpcError` or with the server."""
    method = to.unary_stream(
        call.path, request_serializer=call.request.SerializeToString, response_deserializer=call.response.FromString
    )
    return method(request).__aiter__()


def service(handlers: Sequence[tuple[Call[Any, Any], Unary | Stream]]) -> list[grpc.GenericRpcHandler]:
    """What `Server.add_generic_rpc_handlers` takes, one for each service named."""
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for call, handler in handlers:
        make = grpc.unary_stream_rpc_method_handler if call.streams else grpc.unary_unary_rpc_method_handler
        by_service.setdefault(call.service, {})[call.method] = make(
            cast("Any", handler),
            request_deserializer=call.request.FromString,
            response_serializer=call.response.SerializeToString,
        )
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in by_service.items()]


def server(handlers: Sequence[tuple[Call[Any, Any], Unary | Stream]], socket: str) -> grpc.aio.Server:
    """A server bound to a unix socket, not yet started. Raises RuntimeError if it cannot bind."""
    made = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    made.add_generic_rpc_handlers(tuple(service(handlers)))
    made.add_insecure_port(f"unix:{socket}")
    return made
