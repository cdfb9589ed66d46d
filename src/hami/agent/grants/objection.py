"""The second wall: whether a record may be granted, judged on this node alone. Pure.

Admission keeps forged records out of the cluster; if one comes all the same, by a scheduler
that is not ours or a hole in admission, it gets no more than its pod asked for and nothing
that others were promised.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from hami.agent.bound import BoundPod, Share
from hami.model.ask import CardAsk, PodRef
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.plan import Charge, ContainerSlices, Slice
from hami.model.vendor import Vendor
from hami.vendors.ask import ask_of


class Rules(Struct, frozen=True):
    """What the administrator allows."""

    scheduler_names: tuple[str, ...] = ()
    """Empty: any scheduler is trusted."""
    guard_environment: bool = True
    """Whether cards are named by an environment variable, which the pod's own would override."""


def objection(
    pod: BoundPod,
    share: Share,
    cards: Sequence[Card],
    *,
    granted: Iterable[BoundPod],
    vendor: Vendor,
    rules: Rules,
) -> str | None:
    """Why this container must not get its record's slices; None when it may.

    `granted` are the other pods that have cards of this node now.
    """
    return (
        _of_scheduler(pod, rules)
        or _of_environment(share, rules)
        or _of_cards(share.slices, cards)
        or _of_ask(pod, share, cards, vendor)
        or _of_capacity(pod, share, cards, granted)
    )


def overpromise(pod: BoundPod, share: Share, cards: Sequence[Card], granted: Iterable[BoundPod]) -> str | None:
    """Why the cards cannot give a container that has its cards already the size that its record now says.

    A card that is held back takes nobody new; who is on it stays, and may become smaller, too.
    """
    return _of_cards(share.slices, cards, new=False) or _of_capacity(pod, share, cards, granted)


def _of_scheduler(pod: BoundPod, rules: Rules) -> str | None:
    name = pod.pod.spec.scheduler_name or ""
    if not rules.scheduler_names or name in rules.scheduler_names:
        return None
    return f"scheduler {name!r} is not trusted with cards; trusted: {', '.join(rules.scheduler_names)}"


def _of_environment(share: Share, rules: Rules) -> str | None:
    if rules.guard_environment and any(one.name == "NVIDIA_VISIBLE_DEVICES" for one in share.spec.env or ()):
        return "its env sets NVIDIA_VISIBLE_DEVICES, which would override the granted cards: remove it"
    return None


def _of_cards(slices: ContainerSlices, cards: Sequence[Card], *, new: bool = True) -> str | None:
    known = {card.id: card for card in cards}
    for one in slices:
        card = known.get(one.card)
        if card is None:
            return f"card {one.card} is not on this node now"
        if new and not card.healthy:
            return f"card {one.card} is unhealthy"
    if len({one.card for one in slices}) != len(slices):
        return "its record names one card twice"
    return None


def _of_ask(pod: BoundPod, share: Share, cards: Sequence[Card], vendor: Vendor) -> str | None:
    """A record must not give more than the pod's own resources ask for."""
    try:
        ask = ask_of(pod.pod, (vendor,))
    except Malformed as fault:
        return f"what it asks for cannot be read: {fault}"
    own = next((one for one in ask.containers if one.name == share.name), None)
    asked = own.cards[0] if own is not None and own.cards else None
    if asked is None:
        return f"its record gives cards to container {share.name}, which asks for none"
    if asked.cards != len(share.slices):
        return f"its record gives {len(share.slices)} cards, it asks for {asked.cards}"
    size = {card.id: card.mem_mib for card in cards}
    return next((text for one in share.slices if (text := _more(one, asked, size[one.card]))), None)


def _more(one: Slice, asked: CardAsk, card_mem_mib: int) -> str | None:
    if one.mem_mib > asked.mem_on(card_mem_mib):
        return f"its record gives {one.mem_mib} MiB of {one.card}, it asks for {asked.mem_on(card_mem_mib)}"
    if one.core_percent > asked.core_percent:
        return f"its record gives {one.core_percent} % of {one.card}, it asks for {asked.core_percent}"
    return None


def _of_capacity(pod: BoundPod, share: Share, cards: Sequence[Card], granted: Iterable[BoundPod]) -> str | None:
    """No card may be promised twice, whatever records say."""
    mine = {one.card for one in share.slices}
    loads: dict[str, list[Charge]] = {card: [] for card in mine}
    seen: set[PodRef] = set()
    for other in (*granted, pod):
        if other.ref in seen:
            continue
        seen.add(other.ref)
        for charge in other.charges:
            if charge.card in loads:
                loads[charge.card].append(charge)
    by_id = {card.id: card for card in cards}
    return next((text for one in share.slices if (text := _over(by_id[one.card], loads[one.card]))), None)


def _over(card: Card, taken: list[Charge]) -> str | None:
    sums = (
        ("slices", sum(one.slots for one in taken), card.slots),
        ("MiB", sum(one.mem_mib for one in taken), card.mem_mib),
        ("% of cores", sum(one.core_percent for one in taken), card.core_percent),
    )
    for unit, wanted, there in sums:
        if wanted > there:
            return f"card {card.id} has {there} {unit}, with this pod {wanted} would be promised"
    return None
