"""An API server for tests: true versions, watches, bindings and leases, and any misbehaviour on order.

`Store` is the truth and its rules, without time or network; `ApiServer` serves it over HTTP on loopback;
`MemoryKube` is the same without a socket. A contract test holds it to what a real kube-apiserver does.
"""

from hami.sim.apiserver.faults import Faults
from hami.sim.apiserver.memory import MemoryKube
from hami.sim.apiserver.server import ApiServer
from hami.sim.apiserver.store import Store

__all__ = ["ApiServer", "Faults", "MemoryKube", "Store"]
