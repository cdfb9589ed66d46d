"""Who gives way when there is too much: the first to come of those who come from where most does.

Anybody can reach the port, and the API server, which shows no certificate, must be served all the same. What it sends
is there within milliseconds and seldom much at once, so of all that is kept the oldest is nearly always a
stranger's; and a peer with less than the mean loses nothing, however much the others bring. But who comes is not the
one that has most just because the others, each of an address of its own, hold little. No clock is asked.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class Kept(Protocol):
    """Something that takes room, and the address it comes from."""

    @property
    def peer(self) -> str: ...


T = TypeVar("T", bound=Kept)


def gives_way(kept: Iterable[T], weight: Callable[[T], int], anybody: int = 0) -> T | None:
    """Of these, in the order in which they came, the first whose peer has no less than the mean of all peers.

    A peer that has less than `anybody` may have counts as having that. None where there are none.
    """
    entries = tuple(kept)
    of_peer: dict[str, int] = {}
    for one in entries:
        of_peer[one.peer] = of_peer.get(one.peer, 0) + weight(one)
    of_peer = {peer: max(has, anybody) for peer, has in of_peer.items()}
    total = sum(of_peer.values())
    return next((one for one in entries if of_peer[one.peer] * len(of_peer) >= total), None)
