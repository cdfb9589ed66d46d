"""What a pod's containers ask, one want for each family that one asks of."""

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, ContainerKind


class Want(Struct, frozen=True):
    """One container's ask of one family, and where in the pod it stands."""

    container: int
    kind: ContainerKind
    ask: CardAsk


def wants(ask: Ask) -> tuple[Want, ...]:
    """What the pod's containers ask, in spec order."""
    return tuple(
        Want(place, container.kind, cards)
        for place, container in enumerate(ask.containers)
        for cards in container.cards
        if cards.cards > 0
    )
