"""All seats of this node: in memory for reading, in the checkpoint before anything follows from them.

The only writer of the checkpoint. Knows nothing of kubelet's calls or of Kubernetes.

What is written outlives the agent at once, and the machine a moment later (`keep`): kubelet waits for each answer while
a burst of container starts keeps the disk busy. After a power cut no container runs; what the last moment lacked is
rebuilt from kubelet's own file (`recover`), which kubelet does wait for. A disk that does not take what was written
(an error that comes with the wait, as of a network or a thin volume) is trusted no more: until it has taken everything
once, each change waits for it, and is refused where it fails.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from hami.agent.grants.checkpoint import Checkpoint, Seat, State, Unreadable
from hami.model.grant import Grant
from hami.model.ids import PodUid

log = logging.getLogger(__name__)
KEEP_S = 0.2
"""From a change to the disk: one wait for all changes of a burst's moment."""
AGAIN_S = 5.0
"""After a disk that did not take it."""


class Seats:
    """Seats by key. A change is on disk before it is visible here."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._seats: dict[str, Seat] = {}
        self._on_disk: dict[str, Seat] | None = {}
        """What the file says; None: not known."""
        self._wary = False
        """Whether each change waits for the disk, since it may not take it."""
        self._told = False
        """Whether the log says that the disk does not take them."""
        self._writing = asyncio.Lock()
        self._unkept = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change, in the loop."""
        self.on_unkept: Callable[[], None] = lambda: None
        """Called when the disk did not take what was written, in the loop."""

    def __iter__(self) -> Iterator[Seat]:
        return iter(tuple(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    def load(self) -> tuple[str, ...]:
        """Take over what was saved; the keys of seats that were started and never answered, of which no more is known.

        Those leave the file with the next change: nothing need be written to start, on a full disk either. A damaged
        file is set aside, and nothing is known.
        """
        try:
            loaded = self._checkpoint.load()
        except Unreadable as fault:
            log.error("checkpoint is damaged", extra={"fault": str(fault), "kept": self._set_aside()})
            return ()
        self._seats = self._on_disk = {seat.key: seat for seat in loaded if seat.state is State.COMPLETED}
        return tuple(seat.key for seat in loaded if seat.state is State.STARTED)

    def _set_aside(self) -> str:
        try:
            return str(self._checkpoint.set_aside())
        except OSError as fault:
            return f"no copy of it: {fault}"

    def get(self, key: str) -> Seat | None:
        return self._seats.get(key)

    def holding(self, ids: frozenset[str]) -> list[Seat]:
        """Seats of exactly these ids: two where an app container reuses its init container's."""
        return [seat for seat in self._seats.values() if seat.ids == ids]

    def of_pod(self, uid: PodUid) -> list[Seat]:
        return [seat for seat in self._seats.values() if seat.grant.pod.uid == uid]

    async def change(
        self,
        put: Iterable[Seat] = (),
        drop: Iterable[str] = (),
        *,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """All or nothing. Raises OSError where it cannot be saved; then nothing has changed.

        `first` is done before it is saved, off the loop; what it raises is raised, and nothing has changed.
        """
        async with self._writing:
            after = dict(self._seats)
            for key in drop:
                after.pop(key, None)
            after.update((seat.key, seat) for seat in put)

            def write() -> None:
                first()
                self._save(after)

            await self._follow(write, after, self._seats)

    async def enter(self, seat: Seat, prepare: Callable[[], None]) -> None:
        """The two phases of a new seat: written as started, `prepare`, written as completed and seen so.

        One trip off the loop for all three, since kubelet waits meanwhile. Raises what `prepare` or the
        disk raises; all is then as before but for the file, which may say started until the next change.
        """
        async with self._writing:
            before = self._seats
            started = {**before, seat.key: replace(seat, state=State.STARTED)}
            completed = {**before, seat.key: replace(seat, state=State.COMPLETED)}
            self._seats = started  # nothing follows from a started seat, but its folder must be known as somebody's

            def write() -> None:
                self._save(started)
                prepare()
                self._save(completed)

            await self._follow(write, completed, before)

    async def revise(self, seat: Seat, grant: Grant, prepare: Callable[[], None]) -> bool:
        """The two phases of a seat that gets another grant: marked as unsettled, `prepare`, written with `grant`.

        False: it is not as `seat` says any more, or gone; what has changed it stays. Raises what `prepare` or the disk
        raises; the seat then is as before, or as before and unsettled.
        """
        async with self._writing:
            before = self._seats
            if before.get(seat.key) != seat:
                return False
            marked = {**before, seat.key: replace(seat, unsettled=True)}
            revised = {**before, seat.key: replace(seat, grant=grant, unsettled=False)}
            await self._follow(lambda: self._save(marked), marked, before)

            def write() -> None:
                prepare()
                self._save(revised)

            await self._follow(write, revised, marked)
            return True

    def distrust(self) -> None:
        """Somebody has found that the disk takes nothing: no change counts until it is there."""
        self._wary = True
        self._unkept.set()

    async def keep(self) -> None:
        """Bring what was written to the disk itself, a moment after each change, until cancelled."""
        while True:
            await self._unkept.wait()
            await asyncio.sleep(KEEP_S)
            self._unkept.clear()
            try:
                await self._to_disk()
            except OSError as fault:
                if not self._told:
                    log.error("a power cut would undo the last grants", extra={"why": str(fault)})
                self._wary = self._told = True
                self.on_unkept()
                asyncio.get_running_loop().call_later(AGAIN_S, self._unkept.set)

    async def _to_disk(self) -> None:
        """A disk that has failed is given all of it anew: it may call well what it has thrown away."""
        if not self._wary:
            await asyncio.to_thread(self._checkpoint.keep)
            return
        async with self._writing:
            await asyncio.to_thread(self._checkpoint.save, tuple(self._seats.values()), durable=True)
            self._on_disk, self._wary = self._seats, False
        if self._told:
            self._told = False
            log.info("all grants are on the disk")

    def _save(self, seats: dict[str, Seat]) -> None:
        """In the thread. Nothing where the file says so already."""
        if seats != self._on_disk:
            if self._wary:
                self._on_disk = None  # a name that could not be brought to the disk may be in the folder all the same
            self._checkpoint.save(tuple(seats.values()), durable=self._wary)
            self._on_disk = seats

    async def _follow(self, write: Callable[[], None], after: dict[str, Seat], before: dict[str, Seat]) -> None:
        """Do `write` in a thread, and be `after` if it went well, else `before`.

        Even a file that nobody waits for takes milliseconds on a busy disk, and the loop serves health, watches and
        turns on cards.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        try:
            await asyncio.shield(writing)
        finally:
            # Also when kubelet hangs up meanwhile: a thread cannot be stopped, and memory must follow the disk.
            await asyncio.wait({writing})
            self._seats = after if writing.exception() is None else before
            if self._seats != before:
                self._unkept.set()
                self.on_change()
