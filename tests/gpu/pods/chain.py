"""The steps in their order: the cluster part by part, then what tenants do on it."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import bundle
import crowd
import escape
import modes
import slices
import unmodified
from book import Book
from cluster import Cluster

from hami import native

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[2] / "native"
STEPS: tuple[Callable[[Cluster, Book], None], ...] = (
    slices.whole_card,
    modes.by_cdi,
    slices.two_on_a_card,
    slices.sizes,
    slices.memory,
    slices.killed,
    slices.seen,
    slices.resized,
    crowd.full_card,
    crowd.shares,
    escape.ways_of_starting,
    escape.evading,
    crowd.restarts,
    unmodified.torch,
    modes.by_environment,
)
NEED_YARDSTICK = {"shares", "restarts"}
"""They compare with what `whole_card` measured."""


def run(chosen: argparse.Namespace, work: Path, log: TextIO) -> int:
    """1. the cluster, 2. the steps, 3. logs and JSON whatever happened."""
    book = Book(chosen.out / "pods.json", log)
    book.facts = facts(chosen.simulated)
    library = native.library(native.STANDIN) if chosen.control else None
    cluster = Cluster(work, simulated=chosen.simulated, tenants=tenants(work, book, chosen.musl), library=library)
    try:
        if start(cluster, book):
            take_steps(cluster, book, set(filter(None, chosen.only.split(","))), chosen.budget)
    finally:
        keep_logs(cluster, chosen.out)
        cluster.lab.stop()
        book.note("facts", "\n".join(f"{key}: {value}" for key, value in book.facts.items()))
        book.write()
    print(f"{len(book.rows)} rows, {len(book.failed)} failed: {'; '.join(book.failed)[:1500]}")
    return 1 if book.failed else 0


def start(cluster: Cluster, book: Book) -> bool:
    """Each part needs the one before it."""
    parts = {
        "Kubernetes, kubelet, containerd": cluster.lab.start,
        "scheduler and webhook": cluster.start_product,
        "images": cluster.import_images,
        "agent": cluster.start_agent,
        "card": lambda: read_card(cluster, book),
    }
    if not all(book.run(name, part) for name, part in parts.items()):
        return False
    book.facts["up_s"] = {step.name: step.seconds for step in book.steps}
    crowd.note_node(cluster, book)
    return True


def take_steps(cluster: Cluster, book: Book, only: set[str], budget: float) -> None:
    for part in STEPS:
        name = part.__name__
        if only and name not in only and not (part is slices.whole_card and only & NEED_YARDSTICK):
            continue
        if time.monotonic() - book.begun > budget:
            book.step = name
            book.add("", name, "not begun: time was up", "run", None)
            continue
        book.run(name, lambda part=part: part(cluster, book))  # type: ignore[misc]
        try:
            cluster.clear()
        except Exception as fault:  # the next step's pods may have room beside what is left
            book.say(f"what {name} left behind: {fault}")


def read_card(cluster: Cluster, book: Book) -> None:
    mem = cluster.ask_nvml("print(v.nvmlDeviceGetMemoryInfo(h).total >> 20)")
    if cluster.bench:
        book.facts["card"] = {"name": "NVIDIA H200 (simulated)", "mem_mib": mem, "uuid": cluster.bench.uuid(0)}
        return
    query = ["nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    name, uuid, driver = (part.strip() for part in asked.split(","))
    book.facts["card"] = {"name": name, "mem_mib": mem, "uuid": uuid}
    book.facts["driver"] = driver


def facts(simulated: bool) -> dict[str, object]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "simulated": simulated,
        "kernel": platform.release(),
        "cgroup": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or hybrid",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "unpacked_s": bundle.unpacked_in(),
        "commit": commit(),
    }


def commit() -> str:
    """Of the product that is run."""
    packed = packed_folder()
    if packed:
        return (packed / "commit").read_text().strip()
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def packed_folder() -> Path | None:
    """What `hami.tar.xz` was unpacked to, if we came from a bundle."""
    return next((Path(path).parent for path in sys.path if path.endswith("hami/site")), None)


def tenants(work: Path, book: Book, musl: Path | None = None) -> Path:
    """The bundle's programs, or built here; the static one always here: it must have the libc of the pods."""
    folder = work / "tenants"
    folder.mkdir()
    packed = packed_folder()
    for name, sources in (("probe", sorted((NATIVE / "probe").glob("*.c"))), ("escape", [HERE / "escape.c"])):
        if packed:
            shutil.copy2(packed / "tenants" / name, folder)
        else:
            include = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}", NATIVE / "src/intercept/elf.c"]
            command = ["gcc", "-std=gnu11", "-O1", *include, *sources, "-o", folder / name, "-ldl", "-lpthread"]
            subprocess.run(command, check=True)
    if shutil.which("gcc"):
        command = ["gcc", "-std=gnu11", "-O1", "-DSTATIC", "-static", HERE / "escape.c", "-o", folder / "escape-static"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            book.note("no static program", done.stderr[-400:])
    if musl:
        shutil.copytree(musl, folder / "musl")
    return folder


def keep_logs(cluster: Cluster, out: Path) -> None:
    if cluster.lab.logs.is_dir():
        with tarfile.open(out / "lab-logs.tar.gz", "w:gz") as archive:
            archive.add(cluster.lab.logs, "logs")
