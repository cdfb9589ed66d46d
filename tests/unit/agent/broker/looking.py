"""What tests of the look from outside need: a look without a driver, processes of pods, and a card that answers."""

import os

from hami.agent.broker.look import GRACE_S, Look
from hami.model.errors import Unavailable
from hami.vendors.nvidia.nvml import ProcessLoad
from hami.wire.broker import Usage

from .conftest import OTHER

MIB = 1 << 20

CGROUPS = (
    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-9.scope\n",
    "4:memory:/kubepods/burstable/pod{}/9f86d081884c\n",
)


class Told:
    def __init__(self):
        self.reasons = []
        self.texts = []

    def __call__(self, pod, reason, message):
        self.reasons.append((pod.name, reason))
        self.texts.append(message)


def look(stage, tmp_path, action="report", exceeded="report"):
    told, proc = Told(), tmp_path / "proc"
    wanted = {"action": action, "exceeded": exceeded}
    made = Look(stage.broker, None, None, tell=told, **wanted, proc=proc, clock=lambda: stage.now)
    stage.now += GRACE_S + 1
    return made, told


def process(tmp_path, pid, uid=None, form=CGROUPS[0], began=None):
    folder = tmp_path / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    name = (uid or "").replace("-", "_") if ".slice" in form else uid or ""
    (folder / "cgroup").write_text(form.format(name) if uid else "0::/system.slice/dcgm.service\n")
    if began is not None:
        (folder / "stat").write_text(f"{pid} (a (b) c) S {'7 ' * 18}{began} 0 0\n")


async def told_to_hold(stage, client, mib):
    """By its library's word."""
    client.send(Usage(0, (mib * MIB, 0, 0, 0, 0, 0, 0), 0, 0, 0, 0))
    await stage.settle()


class Card:
    """A driver that answers for one card, and for the other not."""

    def __init__(self, pid=None):
        self.pid = pid or os.getpid()
        self.asked_loads = []

    def device_by_uuid(self, uuid):
        return uuid

    def processes(self, uuid):
        if uuid == OTHER:
            raise Unavailable("the card is lost")
        return [type("Shown", (), {"pid": self.pid, "mem_bytes": None})]

    def process_loads(self, uuid, since_us):
        self.asked_loads.append(uuid)
        return tuple(ProcessLoad(os.getpid(), since_us + at, percent, 0) for at, percent in ((1, 40), (2, 60)))


class Inline:
    async def run(self, call, timeout):  # noqa: ASYNC109
        return call()
