"""First process in a node's namespaces. Run as a script: `nodeinit.py FOLDER`, after unshare(1).

It gives the node its own /var/lib/kubelet, /run/containerd and so on, says so by
creating FOLDER/namespaces, and then reaps whatever is orphaned in the node's PID
namespace. When it dies, the kernel ends everything in there, and with the last
process all its mounts go. It imports nothing of the project.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

BIND, RECURSIVE, SHARED = 4096, 16384, 1 << 20  # MS_BIND, MS_REC, MS_SHARED

# Fixed paths of kubelet, containerd and CNI that two nodes cannot share.
OWN = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/run/containerd": "run",
    "/run/cdi": "cdi",
    "/var/log/pods": "log/pods",
    "/var/log/containers": "log/containers",
}

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mount {kind} {source} on {target} ({options})")


def shadow(folder: Path) -> None:
    """Let entries be added to a host folder that only this node sees: a tmpfs with the host's entries bound into it."""
    entries = [(entry.name, entry.is_symlink(), entry.is_dir()) for entry in os.scandir(folder)]
    original = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", str(folder), "tmpfs", options="mode=0755")
    for name, is_link, is_folder in entries:
        source, target = f"/proc/self/fd/{original}/{name}", folder / name
        if is_link:
            target.symlink_to(Path(source).readlink())
            continue
        if is_folder:
            target.mkdir()
        else:
            target.touch()
        mount(source, str(target), "none", BIND | RECURSIVE)
    os.close(original)


def overlay_works(folder: Path) -> bool:
    """Not where the folder itself lies on an overlay, as in many containers."""
    parts = [folder / "probe" / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    lower, upper, work, merged = parts
    try:
        mount("overlay", str(merged), "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work}")
    except OSError:
        return False
    libc.umount2(str(merged).encode(), 0)
    return True


def reap_forever() -> None:
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


def main() -> None:
    folder = Path(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # before the first orphan can come
    missing = {Path(path).parent for path in OWN if not Path(path).is_dir()}
    for parent in sorted(missing):
        shadow(parent)
    for path, own in OWN.items():
        (folder / own).mkdir(parents=True, exist_ok=True)
        Path(path).mkdir(exist_ok=True)
        mount(str(folder / own), path, "none", BIND | RECURSIVE)
    # As on a real node: containers may ask to see mounts that are made later.
    mount("none", "/", "none", SHARED | RECURSIVE)
    (folder / "containerd").mkdir(exist_ok=True)
    snapshotter = "overlayfs" if overlay_works(folder / "containerd") else "native"
    ready = folder / "namespaces.partial"
    ready.write_text(snapshotter)
    ready.rename(folder / "namespaces")
    reap_forever()


if __name__ == "__main__":
    main()
