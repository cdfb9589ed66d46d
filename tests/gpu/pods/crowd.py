"""Steps about several tenants of one card: shares, a full card, and what restarts under them."""

import json
import time
from collections.abc import Sequence

from book import Book
from cluster import Cluster, finish, steady

from hami import native

WARM_S = 2.0
WORK_S = 24


def shares(at: Cluster, book: Book) -> None:
    """Two pods capped at 30 and 70, full queues, measured in the pods against the whole card."""
    solo = book.facts["solo_rate"]
    pods = [at.pod("thirty", gpu=1, gpumem=8000, gpucores=30), at.pod("seventy", gpu=1, gpumem=8000, gpucores=70)]
    with at.running(*pods):
        for ns, label in ((1_000_000, "1 ms"), (100_000, "0.1 ms")):
            running = [at.work(name, "spin", 10, ns) for name in ("thirty", "seventy")]
            got = [steady(finish(each), WARM_S) * ns / 1_000_000 / solo * 100 for each in running]
            what = f"caps 30 and 70, {label} kernels queued in both"
            ok = near(at, got, (30, 70), 1.5)
            book.add("", what, f"{got[0]:.1f} and {got[1]:.1f} %", "30 and 70, each +- 1.5", ok)
        alone = steady(finish(at.work("thirty", "spin", 10, 1_000_000)), WARM_S) / solo * 100
        book.add(
            "", "cap 30, force, its neighbour idle, 10 s", f"{alone:.1f} %", "30 +- 1", near(at, [alone], (30,), 1)
        )


def near(at: Cluster, shares: Sequence[float], caps: Sequence[int], points: float) -> bool:
    """On a simulated card, whose time is a busy machine's, nobody may get more; how much less says nothing."""
    over = all(share <= cap + points for share, cap in zip(shares, caps, strict=True))
    under = all(share >= cap - points for share, cap in zip(shares, caps, strict=True))
    return over and (under or at.simulated)


def full_card(at: Cluster, book: Book) -> None:
    """Two large pods, a third refused with the reason; one leaves and the third starts."""
    total = book.facts["card"]["mem_mib"]
    size = int(total * 0.42) // 1000 * 1000
    names = ("large-1", "large-2", "large-3")
    pods = [at.pod(name, gpu=1, gpumem=size, gpucores=10) for name in names]
    at.create(*pods[:2])
    try:
        at.wait_running(*names[:2])
        for name in names[:2]:
            at.behind(name, "/opt/probe", "hold", str(size - 1500), "120")
        held = at.until(
            "both held",
            lambda: all(at.metric("hami_vgpu_memory_buffer_bytes", name) >= (size - 1500) << 20 for name in names[:2]),
            30,
        )
        book.add(
            "",
            f"two pods of {size} MiB on {total}: both Running, both hold",
            f"{size - 1500} MiB each after {held:.1f} s",
            f"{size - 1500} each",
            True,
        )
        at.create(pods[2])
        at.until("a reason", lambda: at.pending_reason(names[2]), 20)
        reason = at.pending_reason(names[2])
        book.note("why the third waits", reason)
        missing = size - (total - 2 * size)
        ok = at.phase(names[2]) == "Pending" and "CardInsufficientMemory" in reason and f"{missing} MiB" in reason
        book.add(
            "4.6",
            "the third",
            reason.partition(" no new claims")[0],
            f"Pending, CardInsufficientMemory, missing {missing} MiB",
            ok,
        )
        at.delete(names[0])
        begun = time.monotonic()
        at.wait_running(names[2], within=30)
        book.add(
            "4.7",
            "one is deleted: once it is gone, the third runs after",
            f"{time.monotonic() - begun:.1f} s",
            "bound within 2 s, then its start",
            time.monotonic() - begun < 8,
        )
    finally:
        at.delete(*names)


def restarts(at: Cluster, book: Book) -> None:
    """kill -9 of the agent, then of kubelet, under two working pods."""
    solo = book.facts["solo_rate"]
    names = ("calm-1", "calm-2")
    with at.running(*(at.pod(name, gpu=1, gpumem=8000, gpucores=40) for name in names)):
        before = [at.lab.get("pod", name)["status"]["containerStatuses"][0]["containerID"] for name in names]
        for name in names:
            at.behind(name, *at.run_words("spin", WORK_S, 1_000_000), name="work")
            at.behind(name, "/opt/probe", "hold", "3000", "120")
        begun = time.monotonic()
        time.sleep(4)
        other = at.folder / "libvgpu-next.so"
        other.write_bytes(native.library(native.LIMITER).read_bytes() + b"next")  # another file, the same library
        back = at.restart_agent(library_file=other)
        book.add(
            "3.19",
            "agent: kill -9, 2 s without, a new one with a new library",
            f"ready, and counted by kubelet, after {back:.1f} s",
            "< 15 s",
            back < 15,
        )
        at.until(
            "everybody registered again",
            lambda: all(at.metric("hami_vgpu_memory_buffer_bytes", name) >= 3000 << 20 for name in names),
            30,
        )
        at.node.kubelet.kill()
        at.node.kubelet.start()
        at.until("node Ready", lambda: ready(at), 40)
        at.until("allocatable again", lambda: at.allocatable() > 0, 20)
        time.sleep(max(0.0, begun + WORK_S + 2 - time.monotonic()))
        got = [at.of_behind(name, "work") for name in names]
        rates = [steady(each, WARM_S) / solo * 100 for each in got]
        idle = [sum(1 for tenth in each["tenths"][5:-1] if tenth == 0) for each in got]
        ok = near(at, rates, (40, 40), 2) and (at.simulated or max(idle) <= 2)
        text = f"{rates[0]:.1f} and {rates[1]:.1f} %, {max(idle)} tenths of a second idle"
        book.add("3.19", "both pods' work through both restarts, caps 40", text, "40 +- 2 each, <= 2", ok)
        after = [at.lab.get("pod", name)["status"]["containerStatuses"][0]["containerID"] for name in names]
        counts = [at.restarts(name) for name in names]
        book.add(
            "4.10",
            "their containers",
            f"restarts {counts}, {'the same' if before == after else 'others'}",
            "restarts [0, 0], the same",
            before == after and counts == [0, 0],
        )
        taken = [at.probe(name, "mem", "linear", "256").get("taken_mib", 0) for name in names]
        book.add(
            "3.19",
            "their limits still hold: 8000 less 3000 held, each takes",
            f"{taken} MiB",
            "<= 5000 each",
            all(3000 < one <= 5000 for one in taken),
        )
        with at.running(at.pod("late", gpu=1, gpumem=2000)):
            total = at.probe("late", "info").get("total_mib")
            book.add("4.10", "a pod that comes afterwards", f"total {total} MiB", "2000", total == 2000)


def ready(at: Cluster) -> bool:
    conditions = at.lab.get("node", "gpu-node")["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def note_node(at: Cluster, book: Book) -> None:
    """What the node's objects say, for the log."""
    node = at.lab.get("node", "gpu-node")
    kept = {
        "annotations": node["metadata"].get("annotations"),
        "allocatable": node["status"]["allocatable"],
        "info": node["status"]["nodeInfo"],
    }
    book.note("node", json.dumps(kept, indent=1))
