"""Row 4.14: how a card comes into a container: by CDI with the driver, or by name in the environment."""

import json
from pathlib import Path

from book import Book
from cluster import Cluster

from hami.agent import cdi
from hami.vendors.nvidia import files

DRIVER = "/driver"


def by_cdi(at: Cluster, book: Book) -> None:
    spec = json.loads((at.node.root / "run/cdi" / cdi.FILE_NAME).read_text())
    book.note("the CDI spec", json.dumps(spec, indent=1))
    names = [device["name"] for device in spec["devices"]]
    ok = names == [book.facts["card"]["uuid"]] and spec["kind"] == cdi.CDI_KIND
    count = len(spec["containerEdits"]["mounts"])
    book.add(
        "4.14",
        "CDI: the spec's devices, its mounts",
        f"{len(names)} card, {count} mounts",
        "the card, the driver",
        ok and count > 2,
    )
    with at.running(at.pod("by-cdi", gpu=1, gpumem=2000)):
        given(at, book, "by-cdi", "CDI", "void")
        total = at.probe("by-cdi", "info").get("total_mib")
        book.add("4.14", "CDI: cuMemGetInfo's total", total, "2000", total == 2000)


def by_environment(at: Cluster, book: Book) -> None:
    """Without a toolkit nobody brings the driver in this mode: here it comes through a hostPath volume."""
    driver = files.find(
        at.folder / "driver" if at.simulated else Path("/"), str(at.folder / "driver") if at.simulated else "/"
    )
    if driver is None:
        raise RuntimeError("no driver found")
    folder = str(Path(driver.libraries[0].host_path).parent)
    container = {
        "env": [{"name": "LD_LIBRARY_PATH", "value": DRIVER}],
        "volumeMounts": [{"name": "driver", "mountPath": DRIVER, "readOnly": True}],
    }
    spec = {"volumes": [{"name": "driver", "hostPath": {"path": folder}}]}
    at.restart_agent(device_list_strategy="envvar", pass_device_specs=True)
    try:
        with at.running(at.pod("by-env", gpu=1, gpumem=2000, container=container, spec=spec)):
            given(at, book, "by-env", "environment", book.facts["card"]["uuid"])
            total = at.probe("by-env", "info").get("total_mib")
            book.add("4.14", "environment: cuMemGetInfo's total", total, "2000", total == 2000)
    finally:
        at.restart_agent()


def given(at: Cluster, book: Book, pod: str, mode: str, visible: str) -> None:
    """Device nodes and the variable that NVIDIA's runtime would read."""
    nodes = at.exec(pod, "/bin/sh", "-c", "ls /dev | grep ^nvidia").split()
    told = at.exec(pod, "/bin/sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip()
    ok = {"nvidia0", "nvidiactl"} <= set(nodes) and told == visible
    book.add(
        "4.14",
        f"{mode}: device nodes; NVIDIA_VISIBLE_DEVICES",
        f"{' '.join(nodes)}; {told}",
        f"the card's; {visible}",
        ok,
    )
