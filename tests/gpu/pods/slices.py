"""Steps about one slice: what it sees, what it may take, what the node sees of it."""

import json
import re

from book import Book
from cluster import Cluster, finish, steady

CONTEXT_MIB = 700
"""A bare context on a large card, with room: what a process holds before it asks for anything."""


def whole_card(at: Cluster, book: Book) -> None:
    """Rows 3.15; and the yardstick of the shares: the same program in a pod that nobody limits."""
    with at.running(at.pod("whole", gpu=1, gpucores=100)):
        maps = at.exec("whole", "cat", "/proc/self/maps")
        preload = at.exec(
            "whole", "/bin/sh", "-c", "cat /etc/ld.so.preload 2>/dev/null; ls /usr/local/vgpu 2>/dev/null; true"
        )
        info = at.probe("whole", "info")
        book.add(
            "3.15",
            "whole card: library in the process, preload file",
            f"{'vgpu' in maps}, {preload.strip() or 'none'}",
            "False, none",
            "vgpu" not in maps and not preload.strip(),
        )
        full = book.facts["card"]["mem_mib"]
        book.add(
            "3.15",
            "whole card: cuMemGetInfo's total",
            f"{info.get('total_mib')} MiB",
            f"the card's (NVML: {full})",
            abs(info.get("total_mib", 0) - full) < 1500,
        )
        if not at.simulated:
            told = at.exec("whole", "nvidia-smi", "-L")
            book.note("nvidia-smi -L in a whole-card pod", told)
            book.add(
                "3.15", "whole card: nvidia-smi -L", told.strip()[:60], "the card", book.facts["card"]["uuid"] in told
            )
        got = finish(at.start("whole", "/opt/probe", "run", "spin", "4", "1000000"))
        at.rounds_a_ns = got["rounds_a_ns"]
        book.facts["solo_rate"] = steady(got, 0.5)
        book.add(
            "",
            "yardstick: 1 ms kernels in a whole-card pod",
            f"{book.facts['solo_rate']:.1f} launches/s",
            "about 1000",
            book.facts["solo_rate"] > 500,
        )


def two_on_a_card(at: Cluster, book: Book) -> None:
    """Row 1.2."""
    pods = [at.pod(name, gpu=1, gpumem=4000) for name in ("first", "second")]
    with at.running(*pods):
        records = [at.record(name) for name in ("first", "second")]
        book.note("records", "\n".join(records))
        cards = {record.split(",")[0] for record in records}
        sizes = [record.split(",")[2] for record in records]
        ok = len(cards) == 1 and sizes == ["4000", "4000"]
        book.add(
            "1.2",
            "two pods of 4000 MiB: both Running; records",
            f"{len(cards)} card, {sizes[0]} and {sizes[1]} MiB",
            "one card, 4000 and 4000",
            ok,
        )
        totals = [at.probe(name, "info").get("total_mib") for name in ("first", "second")]
        book.add("1.2", "cuMemGetInfo's total in each", f"{totals}", "[4000, 4000]", totals == [4000, 4000])
        spec = at.lab.get("pod", "first")["spec"]
        rights = [
            key
            for key in ("securityContext", "hostPID", "hostNetwork", "runtimeClassName")
            if spec.get(key) or spec["containers"][0].get(key)
        ]
        book.add("", "rights asked for in the pod's spec", rights or "none", "none", not rights)
        book.note("the pod as submitted", json.dumps(at.pod("first", gpu=1, gpumem=4000), indent=1))


def sizes(at: Cluster, book: Book) -> None:
    """Rows 5.2, 3.1, and the queries of a slice."""
    with at.running(at.pod("three", gpu=1, gpumem=3000), at.pod("plain", gpu=1, gpumem=8000, gpucores=30)):
        record, total = at.record("three").split(",")[2], at.probe("three", "info").get("total_mib")
        book.add(
            "5.2",
            "gpumem 3000: record, cuMemGetInfo",
            f"{record}, {total}",
            "3000, 3000",
            (record, total) == ("3000", 3000),
        )
        info = at.probe("plain", "info")
        ok = info.get("total_mib") == 8000 and 8000 - CONTEXT_MIB <= info.get("free_mib", 0) <= 8000
        book.add(
            "3.1",
            "gpumem 8000: cuMemGetInfo total, free",
            f"{info.get('total_mib')}, {info.get('free_mib')} MiB",
            "8000, less a context",
            ok,
        )
        nvidia_smi(at, book, "plain")


def nvidia_smi(at: Cluster, book: Book, pod: str) -> None:
    if at.simulated:
        book.add("3.1", "nvidia-smi in a pod with gpumem 8000", "there is none on simulated cards", "8000 MiB", None)
        return
    book.note("nvidia-smi in the slice", at.exec(pod, "nvidia-smi", check=False))
    asked = at.exec(
        pod, "nvidia-smi", "--query-gpu=memory.total,memory.used,memory.free", "--format=csv,noheader,nounits"
    )
    total, used, free = (int(part) for part in asked.strip().split(","))
    ok = total == 8000 and used < 100 and free > 7900
    book.add(
        "3.1",
        "nvidia-smi in a pod with gpumem 8000: total, used, free",
        f"{total}, {used}, {free} MiB",
        "8000, about 0, about 8000",
        ok,
    )
    bare = at.exec(
        pod, "env", "-i", "/usr/bin/nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"
    ).strip()
    book.add("3.11", "nvidia-smi by env -i: total", f"{bare} MiB", "8000", bare == "8000")


def memory(at: Cluster, book: Book) -> None:
    """Rows 3.2, 3.3, 3.4: the limit is the container's, and nobody else feels it."""
    solo = book.facts.get("solo_rate")
    with at.running(at.pod("taker", gpu=1, gpumem=8000), at.pod("other", gpu=1, gpumem=8000)):
        got = at.probe("taker", "mem", "linear", "256")
        ok = (
            got.get("refused_with") == 2
            and 8000 - CONTEXT_MIB - 256 <= got.get("taken_mib", 0) <= 8000
            and got.get("again") == 1
        )
        book.add(
            "3.2",
            "256 MiB steps in 8000: taken, code, goes on",
            f"{got.get('taken_mib')}, {got.get('refused_with')}, {got.get('again')}",
            "<= 8000, 2 (out of memory), 1",
            ok,
        )
        at.behind("taker", "/opt/probe", "hold", "7000", "30")
        at.until("7000 MiB held", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "taker") >= 7000 << 20, 15)
        free = at.card_free_mib()
        beside = at.probe("other", "mem", "linear", "256").get("taken_mib", 0)
        book.add(
            "3.2",
            "meanwhile: the card has free; the neighbour can take",
            f"{free}, {beside} MiB",
            "> 100000, its own 8000 less a context",
            free > 100000 and beside >= 8000 - CONTEXT_MIB - 256,
        )
        at.kill_behind("taker")
        at.until("memory back", lambda: at.metric("hami_vgpu_memory_used_bytes", "taker") == 0, 15)

        at.behind("taker", "/opt/probe", "hold", "4000", "30")
        at.until("4000 MiB held", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "taker") >= 4000 << 20, 15)
        second = at.probe("taker", "mem", "linear", "256")
        both = 4000 + second.get("taken_mib", 0)
        ok = second.get("refused_with") == 2 and 8000 - 2 * CONTEXT_MIB - 256 <= both <= 8000
        book.add(
            "3.3",
            "two processes in one container: 4000 and then",
            f"{second.get('taken_mib')}, sum {both} MiB",
            "sum <= 8000",
            ok,
        )
        at.kill_behind("taker")

        running = at.work("other", "spin", 5, 1_000_000)
        refused = [at.probe("taker", "mem", "linear", "256").get("refused_with") for _ in range(3)]
        went = finish(running)
        windows = went.get("tenths", [0])[5:-1]
        rate = steady(went, 0.5)
        book.add(
            "3.4",
            "one hits its limit thrice; the other's slowest 0.1 s",
            f"{refused}, {min(windows)} of {sum(windows) / len(windows):.0f} launches",
            "[2, 2, 2], never 0",
            refused == [2, 2, 2] and min(windows) > 0 and "error" not in went,
        )
        if solo:
            book.add("3.4", "its speed meanwhile, against a whole card", f"{rate / solo * 100:.0f} %", "shown", None)


def killed(at: Cluster, book: Book) -> None:
    """Row 3.5, and a container whose own process is killed from outside."""
    with at.running(at.pod("victim", gpu=1, gpumem=8000)):
        before = at.card_free_mib()
        at.behind("victim", "/opt/probe", "hold", "6000", "120")
        at.until("6000 MiB held", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "victim") >= 6000 << 20, 15)
        at.kill_behind("victim")
        took = at.until("memory back", lambda: at.metric("hami_vgpu_memory_used_bytes", "victim") == 0, 20)
        book.add(
            "3.5", "kill -9 of a holder of 6000: from its return, free after", f"{took:.1f} s", "seconds", took <= 5
        )
        again = at.probe("victim", "hold", "6000", "0")
        book.add(
            "3.5", "another takes 6000 at once", again.get("held_mib", again), "6000", again.get("held_mib") == 6000
        )
        gone = at.until("card free", lambda: at.card_free_mib() > before - 100, 20)
        book.add("3.5", "the card itself has it back after", f"{gone:.1f} s", "seconds", gone <= 10)
    holder = at.pod("service", gpu=1, gpumem=5000, container={"command": ["/opt/probe", "hold", "3000", "600"]})
    with at.running(holder):
        at.until("3000 MiB held", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "service") >= 3000 << 20, 20)
        for pid in at.host_pids("service", "probe"):
            at.kill(pid)
        at.until("a restart", lambda: at.restarts("service") == 1, 40)
        at.until("3000 MiB held again", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "service") >= 3000 << 20, 30)
        total = at.probe("service", "info").get("total_mib")
        book.add(
            "3.5",
            "kill -9 of a container's first process: it restarts with",
            f"restart 1, total {total} MiB",
            "its own 5000",
            total == 5000,
        )


def seen(at: Cluster, book: Book) -> None:
    """Row 3.18: what the agent tells of a slice at work."""
    with at.running(at.pod("busy", gpu=1, gpumem=6000, gpucores=40)):
        at.behind("busy", "/opt/probe", "hold", "2000", "60")
        running = at.work("busy", "spin", 6, 1_000_000)
        at.until("use", lambda: at.metric("hami_container_device_utilization_ratio", "busy") > 5, 15)
        at.until("2000 MiB held", lambda: at.metric("hami_vgpu_memory_buffer_bytes", "busy") >= 2000 << 20, 15)
        values = {re.sub(r"\{.*\}", "", line).split()[0]: float(line.split()[-1]) for line in at.metrics_of("busy")}
        book.note("/metrics of the agent, of this pod", "\n".join(at.metrics_of("busy")))
        finish(running)
    mib = {
        key: int(values.get(f"hami_vgpu_memory_{key}_bytes", -1)) >> 20
        for key in ("limit", "used", "context", "module", "buffer")
    }
    parts = mib["context"] + mib["module"] + mib["buffer"]
    ok = mib["limit"] == 6000 and mib["buffer"] >= 2000 and abs(parts - mib["used"]) <= 2
    book.add(
        "3.18",
        "limit, used = context + module + buffer",
        f"{mib['limit']}, {mib['used']} = {mib['context']} + {mib['module']} + {mib['buffer']} MiB",
        "6000, the sum",
        ok,
    )
    shown = int(values.get("hami_vgpu_memory_shown_bytes", -1)) >> 20
    book.add("3.18", "the same memory by NVML", f"{shown} MiB", "within 128 of used", abs(shown - mib["used"]) <= 128)
    used, last = (
        values.get("hami_container_device_utilization_ratio", -1),
        values.get("hami_container_last_kernel_elapsed_seconds", -1),
    )
    book.add(
        "3.18",
        "utilisation, last kernel",
        f"{used:.0f} %, {last:.1f} s ago",
        "about 40 %, < 2.5 s",
        10 <= used <= 60 and 0 <= last < 2.5,
    )


def resized(at: Cluster, book: Book) -> None:
    """Row 5.16."""
    with at.running(at.pod("grows", gpu=1, gpumem=4000, gpucores=20)):
        watch = at.start("grows", "/opt/probe", "watch", "12")
        assert watch.stdout is not None
        first = json.loads(watch.stdout.readline())["total_mib"]
        record = at.record("grows").replace(",4000,", ",6000,")
        body = json.dumps({"metadata": {"annotations": {"hami.io/vgpu-devices-allocated": record}}})
        at.until(
            "patched", lambda: at.lab.kubectl(f"--kubeconfig={at.writer}", "patch", "pod", "grows", "-p", body), 10
        )
        second = json.loads(watch.stdout.readline())["total_mib"]
        watch.kill()
        fills = at.probe("grows", "mem", "linear", "256").get("taken_mib", 0)
        ok = (first, second) == (4000, 6000) and 6000 - 2 * CONTEXT_MIB - 256 <= fills <= 6000
        book.add(
            "5.16",
            "record 4000 -> 6000 under a running program: sees, takes",
            f"{first} then {second}, {fills} MiB",
            "4000, 6000, <= 6000",
            ok,
        )
        told = ", ".join(reason for reason, _ in at.events("grows") if reason.endswith(("Resized", "Refused")))
        ok = at.restarts("grows") == 0 and told == "SliceResized"
        book.add("5.16", "restarts; event", f"{at.restarts('grows')}; {told}", "0; SliceResized", ok)
