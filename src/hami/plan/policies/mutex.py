"""Share a card with nobody who is there already; later pods may still join."""

from hami.plan.policies.candidate import CardPolicy

POLICY = CardPolicy("mutex", idle_only=True)
