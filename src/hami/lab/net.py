"""A bridge and a subnet for each node's pods, made with the kernel's own calls, so that no tool is needed."""

import fcntl
import ipaddress
import random
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from hami.lab import ports
from hami.lab.errors import LabError

PREFIX = "hl-"
ADD_BRIDGE, REMOVE_BRIDGE = 0x89A0, 0x89A1  # SIOCBRADDBR, SIOCBRDELBR
SET_ADDRESS, SET_MASK = 0x8916, 0x891C  # SIOCSIFADDR, SIOCSIFNETMASK
GET_FLAGS, SET_FLAGS = 0x8913, 0x8914  # SIOCGIFFLAGS, SIOCSIFFLAGS
UP = 1  # IFF_UP
ATTEMPTS = 100


@dataclass
class Network:
    """One node's pod network; the host's end of the bridge has the first address."""

    bridge: str
    subnet: ipaddress.IPv4Network
    _mark: socket.socket

    @property
    def address(self) -> str:
        return str(next(self.subnet.hosts()))

    def close(self) -> None:
        """Remove the bridge and let others have the subnet."""
        remove_bridge(self.bridge)
        self._mark.close()


def make(identity: str, number: int) -> Network:
    """A bridge named after the lab, on a /24 that no route of this machine covers."""
    subnet, mark = _take_subnet()
    network = Network(f"{PREFIX}{identity}-{number}", subnet, mark)
    try:
        _make_bridge(network.bridge, network.address, str(subnet.netmask))
    except OSError as problem:
        network.close()
        raise LabError(f"a network bridge cannot be made here ({problem}); the node's pods need one") from problem
    return network


def bridges() -> dict[str, list[str]]:
    """Bridges of labs on this machine: lab id to names."""
    found: dict[str, list[str]] = {}
    for _, name in socket.if_nameindex():
        if name.startswith(PREFIX):
            found.setdefault(name.removeprefix(PREFIX).split("-")[0], []).append(name)
    return found


def remove_bridge(name: str) -> None:
    """Take it down and remove it; one that is gone is fine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            _set_up(control, name, up=False)
            fcntl.ioctl(control, REMOVE_BRIDGE, _name(name))
        except OSError:
            if name in (interface for _, interface in socket.if_nameindex()):
                raise


def _make_bridge(name: str, address: str, mask: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, ADD_BRIDGE, _name(name))
        fcntl.ioctl(control, SET_ADDRESS, _request(name, address))
        fcntl.ioctl(control, SET_MASK, _request(name, mask))
        _set_up(control, name, up=True)


def _set_up(control: socket.socket, name: str, *, up: bool) -> None:
    answer = fcntl.ioctl(control, GET_FLAGS, struct.pack("16sH22x", name.encode(), 0))
    (flags,) = struct.unpack("16xH22x", answer)
    fcntl.ioctl(control, SET_FLAGS, struct.pack("16sH22x", name.encode(), flags | UP if up else flags & ~UP))


def _name(name: str) -> bytes:
    return struct.pack("16s", name.encode())


def _request(name: str, address: str) -> bytes:
    """A `struct ifreq` that carries an IPv4 address."""
    return struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(address))


def _take_subnet() -> tuple[ipaddress.IPv4Network, socket.socket]:
    taken = _routes()
    for _ in range(ATTEMPTS):
        second, third = random.randint(200, 249), random.randint(0, 255)  # noqa: S311 - nothing secret about it
        subnet = ipaddress.IPv4Network(f"10.{second}.{third}.0/24")
        if any(subnet.overlaps(route) for route in taken):
            continue
        mark = ports.mark_name(f"subnet-{subnet.network_address}")
        if mark:
            return subnet, mark
    raise LabError("no free subnet between 10.200.0.0 and 10.249.255.0 for the pods of a node")


def _routes(table: Path = Path("/proc/net/route")) -> list[ipaddress.IPv4Network]:
    """What this machine already routes, the default route left out."""
    routes = []
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (struct.pack("<I", int(fields[column], 16)) for column in (1, 7))
        if any(mask):
            routes.append(ipaddress.IPv4Network((address, socket.inet_ntoa(mask))))
    return routes
