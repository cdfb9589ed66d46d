"""A reservation: a plan that the ledger has charged and holds for a time."""

from enum import Enum

from msgspec import Struct

from hami.model.ask import Ask
from hami.model.plan import Plan


class ReservationState(Enum):
    HELD = "held"  # decided in /filter; given back unless /bind comes before `expires_at`
    BINDING = "binding"  # the Binding is on its way; its fate is known only from the API server


class Reservation(Struct, frozen=True):
    """A slice that is taken. Times are seconds of the ledger's clock."""

    ask: Ask
    plan: Plan
    state: ReservationState
    expires_at: float
