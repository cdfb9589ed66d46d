"""Row 1.3: an unmodified PyTorch in a slice.

No image of it can be pulled here, so the pod's image has this machine's Python binary and system libraries, and the
packages come through read-only hostPath volumes. The driver comes by CDI, as for every pod.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from book import Book
from cluster import Cluster, finish

from hami.lab import images

IMAGE = "hami.io/lab/python:1"
WORK = Path(__file__).resolve().parent.parent / "torch_work.py"
MEMORY_MIB = 12000
WORKS = ("train", "matmul")


def torch(at: Cluster, book: Book) -> None:
    if (
        at.simulated
        or subprocess.run([sys.executable, "-c", "import torch"], check=False, capture_output=True).returncode
    ):
        book.add("1.3", "an unmodified PyTorch program", "no PyTorch here", "runs in its slice", None)
        return
    volumes = import_image(at, book)
    container = {
        "image": IMAGE,
        "env": [{"name": "HOME", "value": "/tmp"}],
        "volumeMounts": [
            {"name": f"v{index}", "mountPath": path, "readOnly": True} for index, path in enumerate(volumes)
        ],
    }
    spec = {"volumes": [{"name": f"v{index}", "hostPath": {"path": path}} for index, path in enumerate(volumes)]}
    pods = [
        at.pod("torch-30", gpu=1, gpumem=MEMORY_MIB, gpucores=30, container=dict(container), spec=dict(spec)),
        at.pod("torch-70", gpu=1, gpumem=MEMORY_MIB, gpucores=70, container=dict(container), spec=dict(spec)),
    ]
    solo = at.pod("torch-all", gpu=1, gpucores=100, container=dict(container), spec=dict(spec))
    alone = {}
    with at.running(solo):
        for work in WORKS:
            alone[work] = run(at, "torch-all", "speed", work, "3")
        book.note("PyTorch in a whole-card pod", json.dumps(alone))
    with at.running(*pods):
        fills(at, book)
        for work in WORKS:
            running = [at.start(name, *command("speed", work, "8")) for name in ("torch-30", "torch-70")]
            got = [finish(process, 90) for process in running]
            book.note(f"PyTorch {work}, capped 30 and 70", json.dumps(got))
            shares = [rate(one) / rate(alone[work]) * 100 for one in got]
            busy = 100 * float(str(alone[work].get("busy") or 1))
            text = (
                f"{shares[0]:.0f} and {shares[1]:.0f} % of alone ({rate(alone[work]):.0f} it/s, card {busy:.0f} % busy)"
            )
            book.add("1.3", f"PyTorch {work}, capped 30 and 70 beside each other", text, "targets: limits.md", None)


def fills(at: Cluster, book: Book) -> None:
    got = run(at, "torch-30", "fill")
    book.note("PyTorch fills its slice", json.dumps(got))
    seen, taken, oom, goes_on = (got.get(key) for key in ("total_mib", "taken_mib", "oom", "goes_on"))
    ok = seen == MEMORY_MIB and isinstance(taken, int) and taken <= MEMORY_MIB and oom is True and goes_on is True
    what = f"PyTorch in {MEMORY_MIB} MiB: sees, takes, OutOfMemoryError, goes on"
    book.add("1.3", what, f"{seen}, {taken} MiB, {oom}, {goes_on}", f"{MEMORY_MIB}, no more, True, True", ok)


def run(at: Cluster, pod: str, *words: str) -> dict[str, object]:
    return finish(at.start(pod, *command(*words)), 120)


def command(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-B", "/opt/torch_work.py", *words)


def rate(got: dict[str, object]) -> float:
    if "rate" not in got:
        raise RuntimeError(f"no rate: {json.dumps(got)[:400]}")
    return float(str(got["rate"]))


def import_image(at: Cluster, book: Book) -> list[str]:
    """The image, and the folders that pods must mount for it."""
    binary = Path(sys.executable).resolve()
    found = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__file__)"], check=True, capture_output=True, text=True
    )
    packages = Path(found.stdout.strip()).parents[1]
    standard = Path(sysconfig.get_paths()["stdlib"])
    folders = {str(standard), str(Path(sys.prefix)), str(packages)}
    if not str(sys.base_prefix).startswith("/usr"):
        folders.add(str(sys.base_prefix))
    folders = {one for one in folders if not any(one != other and Path(one).is_relative_to(other) for other in folders)}
    shared = list(standard.glob("lib-dynload/*.so")) + sorted((packages / "torch/lib").glob("*.so*"))
    needed = images.libraries([binary, *shared])
    inside = {path: file for path, file in needed.items() if not any(Path(path).is_relative_to(one) for one in folders)}
    driver = ("libcuda", "libnvidia")
    inside = {path: file for path, file in inside.items() if not Path(path).name.startswith(driver)}
    files = images.programs(images.PROGRAMS, images.NEEDED) | inside | {"/opt/torch_work.py": WORK.read_bytes()}
    if not any(Path(str(binary)).is_relative_to(one) for one in folders):
        files[str(binary)] = binary
    book.note("PyTorch's image", f"{binary}, {len(inside)} libraries of this machine; by hostPath: {sorted(folders)}")
    archive = images.write(at.folder / "python.tar", IMAGE, files, command=["/bin/sleep", "infinity"])
    at.load(archive)
    return sorted(folders)
