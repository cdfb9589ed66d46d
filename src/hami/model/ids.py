"""Names of things, one type each, so that a card is never taken for a node."""

from typing import NewType

NodeName = NewType("NodeName", str)
PodUid = NewType("PodUid", str)
CardId = NewType("CardId", str)
"""What the vendor's driver calls a card, for NVIDIA its UUID ``GPU-...``."""
Family = NewType("Family", str)
"""A vendor's device family as HAMi's records spell it, for NVIDIA ``NVIDIA``."""
