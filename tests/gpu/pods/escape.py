"""A pod that tries to get out: row 3.11, and what only the look from outside holds.

`held` means: by the library, before anything is taken. `seen` means: a program that evades the library is found by
NVML and ended by the agent (`--unregistered stop`), or reported.
"""

import signal
import time

from book import Book
from cluster import ESCAPE, PROBE, Cluster, Json, said

from hami.agent.broker.look import GRACE_S

LIMIT = 4000
WANTED = 6144
LOOK_S = 12
EVENTS = {"UnregisteredProcess", "SliceExceeded"}


def ways_of_starting(at: Cluster, book: Book) -> None:
    """Another environment, another shell, another user: the limit is not in any of them."""
    kept = [*at.calibration, *([f"HAMI_SIM_CARDS={at.bench.path}", "PROBE_SIMULATED=1"] if at.bench else [])]
    shell = " ".join(["env", *at.calibration, PROBE, "mem linear 256"])
    ways = {
        "a second shell by exec": ("/bin/sh", "-c", shell),
        "env -i": ("env", "-i", *kept, PROBE, "mem", "linear", "256"),
        "LD_PRELOAD=": ("env", *at.calibration, "LD_PRELOAD=", PROBE, "mem", "linear", "256"),
        "LD_PRELOAD of another library": (
            "env",
            *at.calibration,
            "LD_PRELOAD=libdl.so.2",
            PROBE,
            "mem",
            "linear",
            "256",
        ),
        "CUDA_DISABLE_CONTROL, other limits in the environment": (
            *("env", "-i", *kept, "CUDA_DISABLE_CONTROL=true", "CUDA_DEVICE_MEMORY_LIMIT=99g"),
            *(
                "CUDA_DEVICE_MEMORY_LIMIT_0=99g",
                "CUDA_DEVICE_MEMORY_SHARED_CACHE=/tmp/own",
                PROBE,
                "mem",
                "linear",
                "256",
            ),
        ),
        "another user (65534)": (
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            PROBE,
            "mem",
            "linear",
            "256",
        ),
        "the loader called by hand": ("/lib64/ld-linux-x86-64.so.2", PROBE, "mem", "linear", "256"),
    }
    with at.running(at.pod("escape", gpu=1, gpumem=LIMIT, gpucores=30)):
        for name, words in ways.items():
            got = said(at.exec("escape", *words, check=False))
            held(book, name, got)
        denied(at, book)
        for way in ("path", "deepbind", "space"):
            words = (ESCAPE, way, driver_path(at), str(WANTED), "0")
            got = said(at.exec("escape", *words, check=False))
            if way == "space" and "no driver" in got.get("error", ""):
                book.add("3.11", "dlmopen: a name space of its own for the driver", "denied", "denied, or held", True)
            else:
                held(book, f"dlopen of the driver by its path: {way}", got)


def held(book: Book, name: str, got: Json) -> None:
    """Within the limit; a program that may not start at all (fail closed) is held as well."""
    taken, total = got.get("taken_mib"), got.get("total_mib")
    refused = "error" in got
    ok = taken is not None and taken <= LIMIT and total == LIMIT
    shown = str(got)[:60] if taken is None else f"sees {total}, takes {taken} MiB"
    book.add("3.11", name, shown, f"sees {LIMIT}, takes no more", ok or (refused and "code" in got))


WRITES = {
    "write /etc/ld.so.preload": "echo > /etc/ld.so.preload",
    "remove it": "rm -f /etc/ld.so.preload",
    "unmount it": "umount /etc/ld.so.preload",
    "mount over it": "mount --bind /dev/null /etc/ld.so.preload",
    "write the policy": "echo > /usr/local/vgpu/policy",
    "write the library": "echo > /usr/local/vgpu/libvgpu.so",
}


def denied(at: Cluster, book: Book) -> None:
    """What the tenant, root in its container, may not write. What it may write shows that the attempts are real."""
    at.exec("escape", "/bin/sh", "-c", "command -v rm umount mount")
    passed = [name for name, line in WRITES.items() if passes(at, line)]
    own = passes(at, "echo > /tmp/own && rm -f /tmp/own")
    text = f"{', '.join(passed) or 'none'}; {'yes' if own else 'no'}"
    what = f"{len(WRITES)} writes as root in the container: passed; for comparison, a file of its own"
    book.add("3.11", what, text, "none; yes", not passed and own)


def passes(at: Cluster, line: str) -> bool:
    return "passed" in at.exec("escape", "/bin/sh", "-c", f"({line}) 2>/dev/null && echo passed", check=False)


def driver_path(at: Cluster, pod: str = "escape") -> str:
    """Where the driver lies in the container."""
    found = at.exec(pod, "/bin/sh", "-c", "ls /usr/lib/*-linux-gnu/libcuda.so.1").split()
    return found[0]


def evading(at: Cluster, book: Book) -> None:
    """Programs that no library can hold: static ones, and those that bring their own loader. Seen, reported, ended."""
    time.sleep(max(0.0, at.agent_began + GRACE_S + 2 - time.monotonic()))  # until then nobody is judged
    with at.running(at.pod("evader", gpu=1, gpumem=LIMIT, gpucores=30)):
        place, library = "/lib64/ld-linux-x86-64.so.2", driver_path(at, "evader")
        # In a copy of the loader the preload file has another name: what a static program has for free.
        at.exec(
            "evader",
            "/bin/sh",
            "-c",
            f"sed 's#/etc/ld.so.preload#/etc/ld.so.nothing#g' {place} > /tmp/ld.so && chmod +x /tmp/ld.so",
        )
        ended(at, book, "a loader of its own", ("/tmp/ld.so", PROBE, "hold", str(WANTED), "60"))
        if (at.tenants / "escape-static").exists():
            ended(at, book, "a static program", ("/opt/escape-static", "path", library, str(WANTED), "60"))
        else:
            book.add("", "a static program", "no static libc here to build it with", "ended", None)
        if (at.tenants / "musl").exists():
            ended(at, book, "a musl program", ("/opt/musl/escape", "path", library, str(WANTED), "60"))
        ended(at, book, "entry points from the driver's symbol table", (ESCAPE, "table", library, str(WANTED), "60"))
        told = [reason for reason, _ in at.events("evader")]
        book.add(
            "",
            "event on the pod",
            ", ".join(sorted(set(told) & EVENTS)) or "none",
            "UnregisteredProcess",
            "UnregisteredProcess" in told,
        )
        exceeded(at, book, library)
        book.add(
            "",
            "the pod's own programs afterwards",
            f"{at.probe('evader', 'info').get('total_mib')} MiB",
            f"{LIMIT}",
            at.probe("evader", "info").get("total_mib") == LIMIT,
        )


def ended(at: Cluster, book: Book, name: str, words: tuple[str, ...]) -> None:
    """Start it, and see whether it is ended from outside, and how soon."""
    begun = time.monotonic()
    running = at.start("evader", *words)
    try:
        running.wait(LOOK_S)
    except Exception:
        running.kill()
        out, _ = running.communicate()
        for pid in at.host_pids("evader", words[0]):
            at.kill(pid)
        book.add("", f"{name}: ended from outside", f"not within {LOOK_S} s: {out[-80:]}", f"within {LOOK_S} s", False)
        return
    took = time.monotonic() - begun
    out, err = running.communicate()
    got = said(out)
    if got.get("code") == 2:
        book.add("", f"{name}: held by the library", str(got)[:60], "held, or ended", True)
        return
    if running.returncode == 128 + signal.SIGSEGV or got.get("error") == "start":
        why = f"CUDA error {got['code']}" if "code" in got else "SIGSEGV"
        book.add("", f"{name}: ended from outside", f"it cannot use this driver: {why}", "ended", None)
        return
    by_kill = running.returncode == 137 or "137" in err
    book.note(f"{name}: exit {running.returncode}", out + err)
    book.add(
        "",
        f"{name}: ended from outside",
        f"after {took:.1f} s, exit {running.returncode}",
        f"within {LOOK_S} s, 137",
        by_kill,
    )


def exceeded(at: Cluster, book: Book, library: str) -> None:
    """Registered as everybody, and then memory taken past the library: NVML shows it."""
    ended(at, book, "memory past the library", (ESCAPE, "taken", library, str(WANTED), "60"))
    told = {reason for reason, _ in at.events("evader")}
    book.add("", "event on the pod", ", ".join(sorted(told & EVENTS)), "SliceExceeded too", "SliceExceeded" in told)
