"""Which MIG profiles an administrator lets be made (``migProfileAllowlist``)."""

from collections.abc import Sequence

from msgspec.structs import replace

from hami.config.schema import MigAllowlist
from hami.model.card import MIG, Card


def allowed(card: Card, allowlist: Sequence[MigAllowlist]) -> Card:
    """The card with the profiles that may be used; without a list, all that its agent registered.

    The entry whose model is the longest part of the card's name counts (HAMi takes the first, by which an H200
    gets an H20's list). A card that no entry names offers none.
    """
    if card.mode != MIG or not allowlist:
        return card
    named = [(len(model), entry) for entry in allowlist for model in entry.models if model in card.model]
    profiles = max(named, key=lambda pair: pair[0])[1].profiles if named else []
    return replace(card, mig_profiles=tuple(one for one in card.mig_profiles if one.name in profiles))
