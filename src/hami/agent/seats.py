"""All seats of this node: in memory for reading, in the checkpoint before anything follows from them.

The only writer of the checkpoint. Knows nothing of kubelet's calls or of Kubernetes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from hami.agent.checkpoint import Checkpoint, Seat, State, Unreadable
from hami.model.ids import PodUid

log = logging.getLogger(__name__)


class Seats:
    """Seats by key. A change is on disk before it is visible here."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._seats: dict[str, Seat] = {}
        self._writing = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change, in the loop."""

    def __iter__(self) -> Iterator[Seat]:
        return iter(tuple(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    def load(self) -> bool:
        """Take over what was saved. False if the file was damaged: it is set aside, and nothing is known."""
        try:
            loaded = self._checkpoint.load()
        except Unreadable as fault:
            log.error("checkpoint is damaged", extra={"fault": str(fault), "kept": str(self._checkpoint.set_aside())})
            return False
        self._seats = {seat.key: seat for seat in loaded}
        return True

    def get(self, key: str) -> Seat | None:
        return self._seats.get(key)

    def holding(self, ids: frozenset[str]) -> list[Seat]:
        """Seats of exactly these ids: two where an app container reuses its init container's."""
        return [seat for seat in self._seats.values() if seat.ids == ids]

    def of_pod(self, uid: PodUid) -> list[Seat]:
        return [seat for seat in self._seats.values() if seat.grant.pod.uid == uid]

    def unfinished(self) -> list[Seat]:
        """Seats whose answer was never given, because the agent died on the way."""
        return [seat for seat in self._seats.values() if seat.state is State.STARTED]

    def ids(self) -> frozenset[str]:
        """Every device id that some seat has."""
        return frozenset(one for seat in self._seats.values() for one in seat.grant.kubelet_ids)

    async def change(self, put: Iterable[Seat] = (), drop: Iterable[str] = (), *, durable: bool = True) -> None:
        """All or nothing. Raises OSError where it cannot be saved; then nothing has changed.

        What is not `durable` a power cut may undo: right for a seat that nobody has been told of.
        """
        async with self._writing:
            after = dict(self._seats)
            for key in drop:
                after.pop(key, None)
            after.update((seat.key, seat) for seat in put)
            if after == self._seats:
                return
            # In a thread: fsync takes milliseconds on a busy disk, and the loop serves health and watches.
            saved = asyncio.to_thread(self._checkpoint.save, tuple(after.values()), durable=durable)
            write = asyncio.ensure_future(saved)
            try:
                await asyncio.shield(write)
            finally:
                # Also when kubelet hangs up meanwhile: a thread cannot be stopped, and memory must follow the disk.
                await asyncio.wait({write})
                if write.exception() is None:
                    self._seats = after
                    self.on_change()
