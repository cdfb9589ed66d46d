"""What a kubelet reports to the API server: that a pod runs, and that its node is alive."""

import time
from typing import Any

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.wire.objects import Pod

LEASES = "kube-node-lease"


def running(pod: Pod) -> dict[str, Any]:
    """The status a kubelet reports once all containers run."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "metadata": {"uid": pod.metadata.uid},
        "status": {
            "phase": "Running",
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("Ready", "ContainersReady", "Initialized")
            ],
            "containerStatuses": [
                {
                    "name": container.name,
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": "simulated",
                    "imageID": "",
                    "state": {"running": {"startedAt": now}},
                }
                for container in pod.spec.containers
            ],
        },
    }


async def renew(kube: Kube, node: str, period: float) -> None:
    """Renew the node's Lease, making it where it is missing."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    spec = {"holderIdentity": node, "leaseDurationSeconds": max(40, int(period * 2)), "renewTime": stamp}
    try:
        await kube.patch(paths.leases(LEASES, node), {"spec": spec})
    except NotFound:
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}, "spec": spec}
        await kube.create(paths.leases(LEASES), lease)
