"""The calls of kubelet's gRPC services: path, request and response types, one line each.

What `protoc`'s gRPC plugin would generate, but typed, and without an import of grpc:
server and client build their handlers from these (`hami.agent.kubelet.rpc`).
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from hami.wire.proto import deviceplugin_pb2 as plugin
from hami.wire.proto import podresources_pb2 as resources

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Call(Generic[Request, Response]):
    """One remote procedure."""

    service: str
    method: str
    request: type[Request]
    response: type[Response]
    streams: bool = False
    """Whether the server answers with a stream of responses."""

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.method}"


VERSION = "v1beta1"
"""What a plugin says at registration."""
HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"

_PLUGIN = "v1beta1.DevicePlugin"

REGISTER = Call("v1beta1.Registration", "Register", plugin.RegisterRequest, plugin.Empty)
OPTIONS = Call(_PLUGIN, "GetDevicePluginOptions", plugin.Empty, plugin.DevicePluginOptions)
LIST_AND_WATCH = Call(_PLUGIN, "ListAndWatch", plugin.Empty, plugin.ListAndWatchResponse, streams=True)
PREFERRED = Call(
    _PLUGIN, "GetPreferredAllocation", plugin.PreferredAllocationRequest, plugin.PreferredAllocationResponse
)
ALLOCATE = Call(_PLUGIN, "Allocate", plugin.AllocateRequest, plugin.AllocateResponse)
PRE_START = Call(_PLUGIN, "PreStartContainer", plugin.PreStartContainerRequest, plugin.PreStartContainerResponse)
LIST_POD_RESOURCES = Call(
    "v1.PodResourcesLister", "List", resources.ListPodResourcesRequest, resources.ListPodResourcesResponse
)
