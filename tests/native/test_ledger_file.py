"""The file that a container's ledger is: where it lies, and what its disk says."""

import subprocess
from pathlib import Path

from .conftest import Container

FULL = """
#include <errno.h>
int fallocate(int file, int mode, long from, long bytes)
{
    errno = file >= 0 && mode == 0 && from == 0 && bytes > 0 ? ENOSPC : EINVAL;
    return -1;
}
"""


def test_a_ledger_that_is_there_is_used_though_its_disk_has_no_more_room(container: Container, tmp_path: Path) -> None:
    """A file system may want as much room again, and refuse it, though all of the file is there."""
    (tmp_path / "full.c").write_text(FULL)
    full = tmp_path / "full.so"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "full.c", "-o", full], check=True)
    there = {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "LD_PRELOAD": f"{container.tools.library} {full}"}
    refused = container.probe("info", **there)
    assert (refused["code"], "No space left on device" in str(refused["stderr"])) == (802, True)
    assert container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g")["total_mib"] == 4096
    assert container.probe("info", **there)["total_mib"] == 4096
