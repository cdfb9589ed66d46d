"""MIG instances on one card: which profile serves an ask, and where on the card it is put.

An instance has a profile and a place, a run of memory slices; places never overlap. Of all ways
to put what a pod asks on a card, the one is taken that uses the smallest profiles and leaves
room for the largest profile still, then for as many of it, then of the next one. Exact: the few ways there are
are all tried. Knows one card; what others hold there comes in.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from msgspec import Struct

from hami.model.ask import CardAsk
from hami.model.card import Card, Instance, MigProfile, Placement
from hami.model.refusal import CardRefusal, Reason
from hami.plan.snapshot import CardState

Instances = tuple[Instance, ...]
Profiles = tuple[MigProfile, ...]

HIGH_FIRST = ("1g.", "3g.")
"""HAMi puts these at the highest free place, all others at the lowest."""


class Need(Struct, frozen=True, order=True):
    """What an instance must have at least."""

    mem_mib: int
    core_percent: int


def need(ask: CardAsk, card: Card) -> Need:
    """What each card of `ask` needs as an instance of `card`. All of a card is its largest profile."""
    mem = ask.mem_on(card.mem_mib)
    if ask.mem_mib is None:
        mem = min(mem, max((one.mem_mib for one in card.mig_profiles), default=mem))
    return Need(mem, ask.core_percent)


@lru_cache(maxsize=4096)
def pack(profiles: Profiles, held: Instances, needs: tuple[Need, ...]) -> Instances | None:
    """An instance for each need, beside those `held`, the best way there is; None where there is none."""
    by_size = sorted(range(len(needs)), key=lambda number: needs[number], reverse=True)
    wanted = [needs[number] for number in by_size]
    taken = mask(held)
    for most in (1, len(profiles)):  # larger profiles than needed only where the right ones have no place
        ways = list(_ways(_smallest_first(profiles), taken, wanted, most))
        if ways:
            best = min(ways, key=lambda way: _worth(profiles, taken, way))
            found = dict(zip(by_size, best, strict=True))
            return tuple(found[number] for number in range(len(needs)))
    return None


def units(card: Card, held: Instances, pending: tuple[Need, ...], one: Need, most: int) -> Iterator[Instances]:
    """The card with one more, two more ... instances for `one`, as long as they have places, at most `most`."""
    for count in range(1, most + 1):
        if len(held) + len(pending) + count > card.slots:
            return
        packed = pack(card.mig_profiles, held, (*pending, *[one] * count))
        if packed is None:
            return
        yield packed


def refuse(ask: CardAsk, state: CardState, idle_only: bool) -> CardRefusal | None:
    """Why the card has no instance for `ask`, None if it has."""
    card, one = state.card, need(ask, state.card)
    if idle_only and state.instances:
        return CardRefusal(card.id, Reason.EXCLUSIVE_CONFLICT)
    largest = max((profile.mem_mib for profile in card.mig_profiles), default=0)
    if one.mem_mib > largest:
        return CardRefusal(card.id, Reason.INSUFFICIENT_MEMORY, one.mem_mib, largest)
    fit = [profile for profile in card.mig_profiles if profile.mem_mib >= one.mem_mib]
    most = max((profile.core_percent for profile in fit), default=0)
    if one.core_percent > most:
        return CardRefusal(card.id, Reason.INSUFFICIENT_CORE, one.core_percent, most)
    if len(state.instances) >= card.slots:
        return CardRefusal(card.id, Reason.SLOTS_EXHAUSTED, 1, 0)
    if pack(card.mig_profiles, state.instances, (one,)) is None:
        return infeasible(ask, state)
    return None


def infeasible(ask: CardAsk, state: CardState) -> CardRefusal:
    """No place is left for (one more of) what `ask` needs."""
    left = largest_left(state.card.mig_profiles, mask(state.instances))
    return CardRefusal(state.card.id, Reason.MIG_INFEASIBLE, need(ask, state.card).mem_mib, left.mem_mib if left else 0)


def explain(ask: CardAsk, states: Iterable[CardState]) -> str:
    """What takes the places on the card that comes nearest, and what would still go there."""
    best: tuple[int, str] = (-1, "")
    for state in states:
        profiles, one = _smallest_first(state.card.mig_profiles), need(ask, state.card)
        serving = next((profile for profile in profiles if _serves(profile, one)), None)
        left = largest_left(state.card.mig_profiles, mask(state.instances))
        if serving is None or (left.mem_mib if left else 0) <= best[0]:
            continue
        held = ", ".join(f"{held.profile} at {held.start}" for held in state.instances) or "no other"
        still = f"the largest that still has one is {left.name}" if left else "nothing has one"
        best = (
            left.mem_mib if left else 0,
            f"no place for another {serving.name} ({one.mem_mib} MiB) on card {state.card.id} beside {held}; {still}",
        )
    return best[1]


def largest_left(profiles: Profiles, taken: int) -> MigProfile | None:
    """The largest profile with a free place."""
    free = (profile for profile in profiles if any(not taken & place for place in _places(profile)))
    return max(free, key=lambda profile: (profile.mem_mib, profile.slices), default=None)


def loss(profiles: Profiles, before: int, after: int) -> int:
    """MiB by which the largest profile that has a place becomes smaller."""
    had, has = largest_left(profiles, before), largest_left(profiles, after)
    return (had.mem_mib if had else 0) - (has.mem_mib if has else 0)


def mask(instances: Iterable[Instance]) -> int:
    """Memory slices taken, a bit each."""
    taken = 0
    for one in instances:
        taken |= bits(one.start, one.size)
    return taken


def bits(start: int, size: int) -> int:
    return ((1 << size) - 1) << start


def profile_of(card: Card, instance: Instance) -> MigProfile:
    return next(profile for profile in card.mig_profiles if profile.name == instance.profile)


def _smallest_first(profiles: Profiles) -> list[MigProfile]:
    return sorted(profiles, key=lambda profile: (profile.mem_mib, profile.slices))


def _serves(profile: MigProfile, one: Need) -> bool:
    return profile.mem_mib >= one.mem_mib and profile.core_percent >= one.core_percent


def _places(profile: MigProfile) -> list[int]:
    return [bits(place.start, place.size) for place in profile.placements]


def _ways(
    profiles: Sequence[MigProfile], taken: int, needs: Sequence[Need], most: int, last: int = 0
) -> Iterator[list[Instance]]:
    """Every way to serve `needs` in order with one of the `most` smallest profiles that serve each.

    Needs that are alike are served in the order of their places, so that no way comes twice.
    """
    if not needs:
        yield []
        return
    options = _options(profiles, needs[0], most)
    alike = len(needs) > 1 and needs[1] == needs[0]
    for number in range(last, len(options)):
        option = options[number]
        place = bits(option.start, option.size)
        if not taken & place:
            for rest in _ways(profiles, taken | place, needs[1:], most, number + 1 if alike else 0):
                yield [option, *rest]


def _options(profiles: Sequence[MigProfile], one: Need, most: int) -> list[Instance]:
    """Instances that serve, the smallest profile first, in HAMi's order of places."""
    serving = [profile for profile in profiles if _serves(profile, one)][:most]
    return [Instance(profile.name, place.start, place.size) for profile in serving for place in _in_order(profile)]


def _in_order(profile: MigProfile) -> list[Placement]:
    return sorted(profile.placements, key=lambda place: place.start, reverse=profile.name.startswith(HIGH_FIRST))


def _worth(profiles: Profiles, taken: int, way: Sequence[Instance]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Lowest is best: the memory the profiles take, what is left for others, HAMi's order of places."""
    sizes = {profile.name: profile.mem_mib for profile in profiles}
    left = _left(profiles, taken | mask(way))
    order = tuple(-one.start if one.profile.startswith(HIGH_FIRST) else one.start for one in way)
    return sum(sizes[one.profile] for one in way), tuple(-count for count in left), order


@lru_cache(maxsize=4096)
def _left(profiles: Profiles, taken: int) -> tuple[int, ...]:
    """How many instances of each profile alone would still have places, the largest profile first."""
    return tuple(_most(tuple(_places(profile)), taken) for profile in reversed(_smallest_first(profiles)))


def _most(places: tuple[int, ...], taken: int) -> int:
    """The most of these places that are free and do not overlap."""
    best = 0
    for number, place in enumerate(places):
        if not taken & place:
            best = max(best, 1 + _most(places[number + 1 :], taken | place))
    return best
