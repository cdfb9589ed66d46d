"""Puts libvgpu.so where containers get it from: a file a version, and never written over.

Running processes have the file mapped: one that is overwritten in place kills them. So a
new library is a new file that is renamed into place, and the old inode lives as long as it is used.

A container must not start without it: a runtime makes an empty folder of a mount that is not there, and
the loader says of a folder that it cannot be preloaded, and goes on.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path

from hami import __version__, native
from hami.agent.files import says, write_durably
from hami.agent.grant import LIBRARY_PATH, PRELOAD_PATH
from hami.agent.settings import Settings
from hami.model.errors import Malformed, Unavailable
from hami.model.grant import Grant

log = logging.getLogger(__name__)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def source(settings: Settings) -> Path:
    """The library of this installation. Raises `native.NotBuilt` where there is none."""
    if settings.library_file:
        return Path(settings.library_file)
    try:
        return native.library(native.LIMITER)
    except native.NotBuilt:
        found = native.library(native.STANDIN)
        log.warning("the stand-in library is handed out: it limits nothing", extra={"path": str(found)})
        return found


def install(settings: Settings) -> str:
    """Bring the host's copy up to date; its path. Raises `native.NotBuilt`, and Malformed for an unusable folder."""
    try:
        return _install(source(settings), settings)
    except OSError as fault:
        raise Malformed("--hook-path", settings.hook_path, f"a folder we may write the library to: {fault}") from fault


def install_if_room(settings: Settings) -> str:
    """As `install`, but a disk that is full, read-only or broken ends no agent: it has containers to serve that run.

    Nobody new comes while no grant can be written there either (`storage`), and `ensure` puts it there first.
    """
    try:
        return install(settings)
    except Malformed as fault:
        if not isinstance(fault.__cause__, OSError) or fault.__cause__.errno not in NO_ROOM:
            raise
        log.error("the library is not installed yet", extra={"why": str(fault)})
        return str(_target(settings))


def ensure(grant: Grant, settings: Settings) -> None:
    """That what the grant mounts is there, before its container starts; put back what was removed from our folder.

    Raises Unavailable where a container would run without the library, saying what to do.
    """
    missing = _missing(grant)
    if not missing:
        return
    for path in missing:
        with contextlib.suppress(OSError):
            Path(path).rmdir()  # a runtime's empty folder
    try:
        install(settings)
    except (native.NotBuilt, Malformed) as fault:
        raise Unavailable(f"the library that holds containers to their slices cannot be put back: {fault}") from fault
    missing = _missing(grant)
    if missing:
        raise Unavailable(
            f"{', '.join(missing)} is missing on this node, and the container would start without limits: "
            "delete the pod, and its successor gets the library of the agent that runs now"
        )


def _missing(grant: Grant) -> list[str]:
    wanted = (mount.host_path for mount in grant.mounts if mount.container_path in (LIBRARY_PATH, PRELOAD_PATH))
    return [path for path in wanted if not Path(path).is_file()]


def _install(origin: Path, settings: Settings) -> str:
    folder = Path(settings.hook_path) / "vgpu"
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:  # the loader says so on stderr, and goes on without it
        where = "a folder on a file system that is not mounted noexec: containers would run without the library"
        raise Malformed("--hook-path", settings.hook_path, where)
    target = _target(settings)
    try:
        text = origin.read_bytes()
    except OSError as fault:
        raise Malformed("--library-file", str(origin), f"a file this process may read: {fault.strerror}") from fault
    if not says(target, text):
        write_durably(target, text, 0o755)
        log.info("library installed", extra={"path": str(target), "from": str(origin)})
    preload = folder / "ld.so.preload"
    line = f"{LIBRARY_PATH}\n".encode()
    if not says(preload, line):
        write_durably(preload, line, 0o644)
    return str(target)


def _target(settings: Settings) -> Path:
    return Path(settings.hook_path) / f"vgpu/libvgpu.so.{__version__}"
