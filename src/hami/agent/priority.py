"""CPU before the containers of the node: kubelet admits no other pod while it waits for our answer.

A burst of container starts keeps every core busy, and an answer that needs 5 ms of CPU then takes 20.
Knows nothing of Kubernetes.
"""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def take_precedence(niceness: int, autogroup: Path = Path("/proc/self/autogroup")) -> bool:
    """Set the process's nice value, and that of its session where the kernel groups processes by session.

    Returns False, and changes nothing, where that is not ours to do: a preference, no condition.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError as fault:
        log.info("runs at the priority of others", extra={"why": str(fault), "niceness": niceness})
        return False
    try:
        autogroup.write_text(str(niceness))
    except OSError:
        log.debug("no groups by session here", extra={"path": str(autogroup)})
    return True
