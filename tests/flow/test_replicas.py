"""Two replicas, each beside a kube-scheduler of its own: the leader dies, the other takes over."""

import time
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ELECTION = {
    "leaderElect": True,
    "resourceName": "hami-scheduler",
    "resourceNamespace": "hami-system",
    "leaseDuration": "6s",
    "renewDeadline": "4s",
    "retryPeriod": "1s",
}
HAND_OVER = 6 + 4 + 6
"""Seconds: the lease runs out, the other kube-scheduler notices, our ledger is read anew, and a queue's back-off."""


def test_the_second_replica_takes_over_and_no_slice_is_given_twice(new_lab: Any, cluster_of: Any) -> None:  # 2.7
    from hami.lab.product import Product

    lab = new_lab()
    cluster = cluster_of(lab)
    cluster.nodes("n1", cards=8, mem_mib=16000, slots=20)
    flags = {"renew-deadline": "4"}
    product = Product(lab, kube_scheduler={"leaderElection": ELECTION}, flags=flags)
    first = product.start(ready=False, elected=True)
    cluster.until("the first decides", lambda: first.ready, timeout=60)
    second = product.start(ready=False, elected=True)
    product.install()
    time.sleep(2)
    assert not second.ready, "a follower is not ready"
    assert "hami-scheduler-0" in second.get("/readyz")[1], "and says who leads"

    pods = [cluster.pod(f"p{number}", gpu=1, gpumem=4000) for number in range(40)]
    cluster.create(*pods[:16])
    cluster.until("some are bound", lambda: len(cluster.taken()) >= 2)
    first.kill()
    began = time.monotonic()
    # the webhook of the leader is gone with it: point it at the other, as a Service does
    product.replicas.remove(first)
    product.install()
    cluster.create(*pods[16:])
    cluster.until("the second decides", lambda: second.ready, timeout=60)
    cluster.until(
        "32 of 40 are bound", lambda: sum(bool(pod["spec"].get("nodeName")) for pod in cluster.pods()) == 32, timeout=60
    )
    took = time.monotonic() - began
    assert max(cluster.taken().values()) == 16000
    assert sum(cluster.taken().values()) == 32 * 4000
    assert took < HAND_OVER + 20
    pending = [pod["metadata"]["name"] for pod in cluster.pods() if not pod["spec"].get("nodeName")]
    cluster.until("the last say why they wait", lambda: "CardInsufficientMemory" in cluster.reason(pending[0]))
