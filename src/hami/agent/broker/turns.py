"""The page of turns of one card: memory that all its tenants share, in which the library takes turns.

Made here, filled by the library (`native/include/hami/turns.h` has the layout and the rules); here only
places are given out, and taken back when a process dies. It holds no limit: what a tenant could
write into it costs its neighbours a little time, never a limit (docs/reference/broker.md).
"""

import fcntl
import mmap
import os
import struct

from hami.wire.broker import MEMBERS, TENANTS

MAGIC, VERSION = 0x4E525554, 1
SIZE = 8192
_HEAD = struct.Struct("<II")
HOLDER = 64
"""Offset: the word of who has the turn; its low 16 bits are the member's number and 1."""
FULL, VIRTUAL, USED = 128, 640, 1152
"""Offsets of a word for each tenant: when it had too much to run, time had over its weight, when it used the card."""
ASKED, TENANT_OF, HAD = 2048, 4096, 4608
"""Offsets for each member: a time when it last asked for its turn, two bytes of its tenant, a time when it had one."""
_WORD = struct.Struct("<Q")
_NUMBER = struct.Struct("<H")


class Turns:
    """One card's page, and who has which place on it. A tenant is a grant's key."""

    def __init__(self) -> None:
        # Not a file: who can write to a file can cut it, and its neighbours would die of SIGBUS. This cannot be cut.
        self.descriptor = os.memfd_create("hami-turns", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, SIZE)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.descriptor, SIZE)
        self._memory[: _HEAD.size] = _HEAD.pack(MAGIC, VERSION)
        self._members: dict[int, str] = {}
        self._tenants: dict[str, int] = {}

    def join(self, key: str) -> int:
        """A member's place; -1: there is none left, and the process takes no turns.

        A tenant may have as many as it leaves to all others: one with a thousand processes keeps nobody from his turns.
        """
        tenant = self._tenants.get(key)
        if tenant is None:
            taken = set(self._tenants.values())
            tenant = next((one for one in range(TENANTS) if one not in taken), -1)
        member = next((one for one in range(MEMBERS) if one not in self._members), -1)
        own = sum(one == key for one in self._members.values())
        if tenant < 0 or member < 0 or own >= MEMBERS - len(self._members):
            return -1
        if key not in self._tenants:
            for words in (FULL, VIRTUAL, USED):  # of who had its number: it would wait for all to have had as much
                self._put(words + 8 * tenant, 0)
        self._put(HAD + 8 * member, 0)
        _NUMBER.pack_into(self._memory, TENANT_OF + 2 * member, tenant)
        self._tenants[key] = tenant
        self._members[member] = key
        return member

    def tenant(self, key: str) -> int:
        """The number of a tenant that has a member here."""
        return self._tenants[key]

    def leave(self, member: int) -> None:
        """The process is gone: it asks no more, and if it had the turn, the next may have it."""
        key = self._members.pop(member, None)
        if key is None:
            return
        self._put(ASKED + 8 * member, 0)
        (holder,) = _WORD.unpack_from(self._memory, HOLDER)
        if holder & 0xFFFF == member + 1:
            self._put(HOLDER, (holder >> 16) + 1 << 16 & 0xFFFF_FFFF_FFFF_FFFF)
        if key not in self._members.values():
            self._put(USED + 8 * self._tenants.pop(key), 0)  # it may have said so for seconds to come

    def __len__(self) -> int:
        return len(self._members)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)

    def _put(self, offset: int, value: int) -> None:
        self._memory[offset : offset + 8] = _WORD.pack(value)
