"""Container images from scratch: this machine's own programs with the libraries they need, as an OCI archive.

No registry, no Dockerfile: the archive is imported into containerd. The
programs are dynamically linked, as those of a real image are, so a preloaded
library works in them.
"""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hami.lab.errors import LabError

TOOLS = "hami.io/lab/tools:1"
PROGRAMS = (
    *("sh", "sleep", "env", "cat", "ls", "echo", "true", "false", "id", "head", "tail", "grep", "sed", "cut", "wc"),
    *("mkdir", "rm", "touch", "stat", "dd", "date", "hostname", "printf", "test", "seq", "sort", "readlink"),
)
NEEDED = ("sh", "sleep", "env", "cat", "ls")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What a container's program expects to find, and nothing else.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "usr/bin", "var")
USERS = {"/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"}

Files = Mapping[str, Path | bytes]


def tools(archive: Path) -> Path:
    """The image that the lab's pods use by default, and its sandboxes too."""
    return write(archive, TOOLS, programs(PROGRAMS, NEEDED), command=["/bin/sleep", "infinity"])


def programs(names: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Path | bytes]:
    """Files of an image that has these programs of the machine under /bin, with loader and libraries."""
    files: dict[str, Path | bytes] = dict(USERS)
    required = set(needed)
    for name in names:
        found = shutil.which(name, path="/bin:/usr/bin:/usr/local/bin:/sbin:/usr/sbin")
        if found:
            files[f"/bin/{name}"] = Path(found)
        elif name in required:
            raise LabError(f"{name} is not on this machine; the lab's image is made of its programs")
    return files | libraries(path for path in files.values() if isinstance(path, Path))


def libraries(programs: Iterable[Path]) -> dict[str, Path | bytes]:
    """The loader and the shared libraries of programs, where they look for them; none for static ones."""
    ldd = shutil.which("ldd")
    if not ldd:
        raise LabError("ldd is not on this machine; it says which libraries an image needs")
    answer = subprocess.run([ldd, *map(str, programs)], capture_output=True, text=True, check=False)
    found = re.findall(r"(/\S+) \(0x", answer.stdout)
    return {path: Path(path) for path in found}


def write(
    archive: Path, name: str, files: Files, *, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Path:
    """An OCI archive of one image with one layer. `files` maps paths in the image to contents or files here."""
    layer = _layer(files)
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    variables = {"PATH": "/bin:/usr/bin", **(environment or {})}
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": list(command), "Env": [f"{key}={value}" for key, value in variables.items()]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("config.v1+json", config_blob),
        "layers": [_descriptor("layer.v1.tar", layer)],
    }
    manifest_blob = json.dumps(manifest).encode()
    entry = {
        **_descriptor("manifest.v1+json", manifest_blob),
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {"io.containerd.image.name": name},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as out:
        _add(out, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(out, "index.json", json.dumps(index).encode())
        for blob in (layer, config_blob, manifest_blob):
            _add(out, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
    return archive


def _layer(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        folders = {*FOLDERS, *(folder for path in files for folder in _parents(path))}
        for folder in sorted(folders):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(member)
        for path, content in sorted(files.items()):
            _add(layer, path.lstrip("/"), content if isinstance(content, bytes) else content.read_bytes(), 0o755)
    return buffer.getvalue()


def _parents(path: str) -> list[str]:
    steps = path.strip("/").split("/")[:-1]
    return ["/".join(steps[: count + 1]) for count in range(len(steps))]


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)  # owner root, time 0: the same input gives the same digest
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
