"""Gangs: pods that are of use only together. All get their slices, or none does.

A gang is named on its pods by the coscheduling convention (`vendors.gang`). When one member is asked about, slices are
planned for all that wait; where fewer than the least number fit, what was planned is given back and the
member is refused. Slices of a gang that fits are held until its members come to /bind, where each
waits for the others; who waits too long is refused and all give back what they hold. So no two
gangs can hold half each. One event loop, no awaits while planning.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.model.ask import Ask, CardAsk, Gang
from hami.model.ids import PodUid
from hami.model.refusal import Reason, Refusal
from hami.model.reservation import ReservationState
from hami.plan.choose import Decision
from hami.plan.fleet.refusals import Refusals

log = logging.getLogger(__name__)

OPPOSITE = {"binpack": "spread", "spread": "binpack"}
Key = tuple[str, str]
"""Namespace and name of a gang."""


class Members(Struct):
    """What is known of one gang. `waiting` are pods without a node, in the order in which they were first seen."""

    waiting: dict[PodUid, Ask] = field(default_factory=dict)
    bound: set[PodUid] = field(default_factory=set)
    arrived: dict[PodUid, "asyncio.Future[bool]"] = field(default_factory=dict)
    """Members whose /bind waits for the others."""

    @property
    def empty(self) -> bool:
        return not (self.waiting or self.bound or self.arrived)


class Gangs:
    """All gangs of the cluster, from the pods that the watch tells of."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        hold: float,
        patience: float,
        decide: Callable[[Ask, Sequence[str]], Decision] | None = None,
    ) -> None:
        """`hold` is seconds for which a gang's slices are held, `patience` how long a bind waits for the others.
        `decide` chooses for one member; the ledger's own choice by default."""
        self._ledger = ledger
        self._decide = decide or ledger.decide
        self._clock = clock
        self._hold = hold
        self._patience = patience
        self._gangs: dict[Key, Members] = {}
        self._of: dict[PodUid, Key] = {}
        self.call: Callable[[PodUid], None] = lambda _uid: None
        """Told each member that kube-scheduler should try again, since its slice is held."""

    # What the watch tells.

    def see(self, ask: Ask) -> None:
        """A member waits for a node."""
        if ask.gang is not None:
            members = self._members(ask)
            if ask.pod.uid not in members.bound:
                members.waiting[ask.pod.uid] = ask

    def bound(self, uid: PodUid, namespace: str, gang: str) -> None:
        """A member has its node."""
        members = self._join(uid, (namespace, gang))
        members.waiting.pop(uid, None)
        members.bound.add(uid)

    def begin(self) -> None:
        """All pods are about to be told again: nobody is known until then. Who waits in /bind waits on."""
        for members in self._gangs.values():
            members.waiting.clear()
            members.bound.clear()

    def gone(self, uid: PodUid) -> None:
        """A member is finished or deleted."""
        key = self._of.pop(uid, None)
        members = self._gangs.get(key) if key else None
        if key is None or members is None:
            return
        members.waiting.pop(uid, None)
        members.bound.discard(uid)
        if members.empty:
            del self._gangs[key]

    # What is decided.

    def decide(self, ask: Ask, gang: Gang, names: Sequence[str]) -> Decision:
        """Plan and hold slices for all of the gang that wait, or for none."""
        self.see(ask)
        members = self._members(ask)
        kept = self._kept(ask, names)
        if kept is not None:
            return kept
        mine, held = self._hold_all(ask, members, names, as_is)
        fit = self._fit(members)
        if held and fit < gang.least and any(otherwise(one) != one for one in members.waiting.values()):
            for uid in held:
                self._ledger.release(uid)
            mine, held = self._hold_all(ask, members, names, otherwise)
            fit = max(fit, self._fit(members))
        if self._fit(members) < gang.least:
            known = len(members.bound) + len(members.waiting)
            self._give_back(list(members.waiting), members)
            return Decision(None, [], Refusals.alike(names, incomplete(gang, fit, known)))
        for uid in held:
            if uid != ask.pod.uid:
                self.call(uid)
        return self._kept(ask, names) or mine

    def resume(self, names: Sequence[str]) -> None:
        """Hold the rest's slices of gangs that are started in part, before anybody else is answered: a scheduler that
        was killed between two of their Bindings has left them so, and its holds are gone with it. kube-scheduler comes
        with them again by itself, since it got no answer. Who still holds a slice, in a scheduler that lived on, keeps
        it: its Binding may be on its way."""
        for members in list(self._gangs.values()):
            without = (ask for uid, ask in members.waiting.items() if self._ledger.reservation(uid) is None)
            ask = next(without, None)
            if ask is None or ask.gang is None or not 0 < len(members.bound) < ask.gang.least:
                continue
            try:
                self.decide(ask, ask.gang, names)
            except Exception:  # a fault over one gang ends no scheduler, which would meet it again at its start
                log.exception("gang %s is not taken up again", ask.gang.name)

    def _kept(self, ask: Ask, names: Sequence[str]) -> Decision | None:
        """The slice a member holds for its gang is where it goes, as long as it may go there."""
        hold = self._ledger.reservation(ask.pod.uid)
        if hold is None or hold.plan.node not in names:
            return None
        said = f"its gang's slices are held, its own on {hold.plan.node}"
        elsewhere = Refusal(((Reason.GANG_INCOMPLETE, 1),), 0, said)
        others = [name for name in names if name != hold.plan.node]
        return Decision(hold.plan, [hold.plan.node], Refusals.alike(others, elsewhere))

    def _hold_all(
        self, ask: Ask, members: Members, names: Sequence[str], wish: Callable[[Ask], Ask]
    ) -> tuple[Decision, list[PodUid]]:
        """Hold slices until the least number has them, this one's first; its decision and who got one. `wish` says by
        which policies cards are chosen for each.

        The others are alike to kube-scheduler as a rule; for one that is not, its own turn will tell.
        """
        assert ask.gang is not None
        mine, held = self._place(ask, names, wish)
        wanting = ask.gang.least - self._fit(members)
        for uid, other in members.waiting.items():
            if wanting <= 0:
                break
            if uid != ask.pod.uid and self._ledger.reservation(uid) is None:
                placed = self._place(other, names, wish)[1]
                wanting -= len(placed)
                held += placed
        return mine, held

    def _place(self, ask: Ask, names: Sequence[str], wish: Callable[[Ask], Ask]) -> tuple[Decision, list[PodUid]]:
        decision = self._decide(wish(ask), names)
        if decision.plan is None:
            self._ledger.release(ask.pod.uid)
            return decision, []
        self._ledger.reserve(ask, decision.plan, self._clock(), self._hold)
        return decision, [ask.pod.uid]

    def _fit(self, members: Members) -> int:
        return len(members.bound) + len(self._holding(members))

    def _holding(self, members: Members) -> list[PodUid]:
        return [uid for uid in members.waiting if self._ledger.reservation(uid) is not None]

    def _give_back(self, uids: Iterable[PodUid], members: Members) -> None:
        """A Binding that is on its way stays: nobody knows yet what became of it."""
        for uid in uids:
            hold = self._ledger.reservation(uid)
            if hold is not None and hold.state is ReservationState.HELD:
                self._ledger.release(uid)
            _answer([one for other, one in members.arrived.items() if other == uid], False)

    # At /bind.

    async def assemble(self, ask: Ask, gang: Gang) -> str | None:
        """Wait until enough members are bound or about to be; why not, if they do not come in time."""
        members, uid = self._members(ask), ask.pod.uid
        mine = members.arrived.setdefault(uid, asyncio.get_running_loop().create_future())
        if len(members.bound) + len(members.arrived) >= gang.least:
            _answer(members.arrived.values(), True)
        try:
            done, _ = await asyncio.wait({mine}, timeout=self._patience)
        except asyncio.CancelledError:
            members.arrived.pop(uid, None)
            raise
        came = len(members.bound) + len(members.arrived)
        members.arrived.pop(uid, None)
        if done and mine.result():
            members.waiting.pop(uid, None)
            members.bound.add(uid)
            return None
        self._give_back(list(members.waiting), members)
        return (
            f"gang {gang.name}: {came} of {gang.least} came within {self._patience:g} s; all give back what they held"
        )

    def unbound(self, uid: PodUid) -> None:
        """A member that was about to be bound was not, or nobody knows; when it is asked about again, it waits."""
        key = self._of.get(uid)
        if key in self._gangs:
            self._gangs[key].bound.discard(uid)

    def _members(self, ask: Ask) -> Members:
        assert ask.gang is not None
        return self._join(ask.pod.uid, (ask.pod.namespace, ask.gang.name))

    def _join(self, uid: PodUid, key: Key) -> Members:
        self._of[uid] = key
        return self._gangs.setdefault(key, Members())


def as_is(ask: Ask) -> Ask:
    return ask


def otherwise(ask: Ask) -> Ask:
    """Of several shared cards: the emptiest first where the fullest were, and the other way round.

    Full cards taken first leave a few large ones, of which no member finds as many as it asks. Nothing else that it
    wishes is given up.
    """
    if not any(_several_shared(card) for container in ask.containers for card in container.cards):
        return ask
    words = ask.card_policy if any(word in OPPOSITE for word in ask.card_policy) else (*ask.card_policy, "spread")
    return replace(ask, card_policy=tuple(OPPOSITE.get(word, word) for word in words))


def _several_shared(card: CardAsk) -> bool:
    """Who takes whole cards finds as many of them in any order."""
    return card.cards > 1 and card.core_percent < 100 and card.mem_percent != 100


def _answer(waiting: Iterable["asyncio.Future[bool]"], go: bool) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(go)


def incomplete(gang: Gang, fit: int, known: int) -> Refusal:
    """``gang g: 3 of 4 fit``, and where too few have come at all, that."""
    came = f", {known} have been created" if known < gang.least else ""
    return Refusal(((Reason.GANG_INCOMPLETE, 1),), 0, f"gang {gang.name}: {fit} of {gang.least} fit{came}")
