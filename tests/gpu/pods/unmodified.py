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
    speeds = {}
    with at.running(solo):
        whole = run(at, "torch-all", "speed", "layer", "4")
        speeds["alone"] = rate(whole)
        book.note("PyTorch in a whole-card pod", json.dumps(whole))
    with at.running(*pods):
        filled = run(at, "torch-30", "fill")
        book.note("PyTorch fills its slice", json.dumps(filled))
        ok = (
            bool(filled.get("oom") and filled.get("goes_on"))
            and filled.get("total_mib") == MEMORY_MIB
            and filled["taken_mib"] <= MEMORY_MIB
        )
        book.add(
            "1.3",
            f"PyTorch in {MEMORY_MIB} MiB: sees, takes, OutOfMemoryError, goes on",
            f"{filled.get('total_mib')}, {filled.get('taken_mib')} MiB, {filled.get('oom')}, {filled.get('goes_on')}",
            f"{MEMORY_MIB}, no more, True, True",
            ok,
        )
        running = {name: at.start(name, *command("speed", "layer", "8")) for name in ("torch-30", "torch-70")}
        for name, process in running.items():
            speeds[name] = rate(finish(process, 90))
    book.add(
        "1.3",
        "a transformer layer: alone; capped 30 and 70 beside each other",
        f"{speeds['alone']:.0f}; {speeds['torch-30']:.0f} and {speeds['torch-70']:.0f} it/s",
        "shown (limits.md has the targets)",
        None,
    )


def run(at: Cluster, pod: str, *words: str) -> dict[str, object]:
    return finish(at.start(pod, *command(*words)), 120)


def command(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-B", "/opt/torch_work.py", *words)


def rate(got: dict[str, object]) -> float:
    for key in ("rate", "per_second", "its"):
        if key in got:
            return float(str(got[key]))
    raise RuntimeError(f"no rate: {json.dumps(got)[:400]}")


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
