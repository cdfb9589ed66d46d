"""A grant's door and its sessions, and how much of the broker's time its container may have."""

from collections.abc import Iterator
from pathlib import Path

from hami.agent.broker.allowance import Allowance
from hami.agent.broker.door import Door
from hami.agent.broker.session import Session
from hami.agent.broker.tenants import PolicyFile, Tenant
from hami.wire.policy import CardLimit

MOST_SESSIONS = 1024
"""Of one grant: as many as its ledger has slots."""
ARRIVALS = 50.0, float(MOST_SESSIONS)
"""Of one grant, a second and at once: its door stays shut for a moment when more come."""
PACKETS = 2000.0, 4096.0
"""Likewise, of all its clients together: what is beyond waits in their sockets."""
TOLD = 0.1, 10.0
"""Likewise, lines of the log about its clients."""


class Place:
    """A grant's door and its sessions."""

    def __init__(self, tenant: Tenant, folder: Path, now: float) -> None:
        self.tenant = tenant
        self.arrivals = Allowance(*ARRIVALS, now)
        self.packets = Allowance(*PACKETS, now)
        self.told = Allowance(*TOLD, now)
        self.untold = 0
        """Lines of the log that were left out since the last one."""
        self.folder = folder
        self.file = PolicyFile(folder)
        self.door: Door | None = None
        self.shut_because = ""
        """Why there is no door, as told last."""
        self.sessions: dict[int, Session] = {}
        """By descriptor."""

    @property
    def cards(self) -> tuple[CardLimit, ...]:
        return self.file.policy.cards if self.file.policy is not None else ()

    def known(self) -> Iterator[Session]:
        return (one for one in self.sessions.values() if one.hello is not None)
