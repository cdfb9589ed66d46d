"""A real Kubernetes on one machine, for the demo and the tests.

    from hami.lab import Lab

    with Lab() as lab:                        # etcd, apiserver, controller-manager, kube-scheduler: about 5 s
        lab.kubectl("get", "ns")              # -> str; CommandFailed with kubectl's own words
        lab.apply({"apiVersion": "v1", ...})  # dict, list of dicts, or YAML text
        lab.kubeconfig                        # Path of the administrator's kubeconfig; lab.url the server

        who = lab.identity("system:kube-scheduler")         # .pair.certificate, .pair.key, .pair.authority, .kubeconfig
        tls = lab.server_certificate("extender", ["127.0.0.1"])   # signed by the same authority
        lab.take_port()                                      # free, kept until the lab stops

        # Our own programs: own log under lab.logs, KUBECONFIG set, killed with the lab.
        run = lab.program([sys.executable, "-m", "hami.cli.main", "scheduler"], env={...}, name="scheduler")
        run.wait_ready(probe); run.kill(); run.start(); run.restart(); run.tail()

        lab.start_scheduler(kube_scheduler_configuration, name="hami-scheduler")   # a second kube-scheduler
        lab.control_plane.apiserver.kill(); lab.control_plane.apiserver.start()    # also .etcd, .controller_manager,
                                                                                   # .schedulers["kube-scheduler"]

    with Lab(nodes=1) as lab:                 # and a real kubelet with containerd; needs root: see `obstacle()`
        node = lab.nodes["node-1"]            # node.kubelet, node.containerd: .kill() .start() .restart()
        lab.program(argv, node=node)          # runs where that kubelet's /var/lib/kubelet/device-plugins is
        # pods use the image hami.io/lab/tools:1 (sh, sleep, cat, env, ls, ... of this machine)

`Lab(scheduler=False)` starts no kube-scheduler, `Lab(scheduler={...})` starts it with
that KubeSchedulerConfiguration, `Lab(apiserver_flags={"v": "4"})` adds or replaces flags. All methods
block: in async code call them with `asyncio.to_thread`. Several labs may live side by side.
Missing programs are built at the first use (`python -m hami.lab build` shows progress).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hami.lab.errors import CommandFailed, LabError
    from hami.lab.lab import Identity, Lab
    from hami.lab.node import Node, NodeSpec, obstacle
    from hami.lab.process import Process

__all__ = ["CommandFailed", "Identity", "Lab", "LabError", "Node", "NodeSpec", "Process", "obstacle"]

_HOMES = {"CommandFailed": "errors", "LabError": "errors", "Identity": "lab", "Lab": "lab", "Process": "process"}


def __getattr__(name: str) -> object:
    """Names are fetched at the first use: the guard process imports this package too and must stay small."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'node')}"), name)
