"""Preemption for cards: evict the fewest and least important pods, so that an important one that waits fits.

kube-scheduler cannot do this: it knows no cards (their resources are ours alone), finds that evicting helps
nothing, and never asks. So we look at the nodes it offered in /filter, choose victims with `plan.exact.preempt`, and
use the Eviction API, which keeps every disruption budget; a dry run first, and where several go a count of what
their budgets let go together, so that nobody is evicted in vain.
The room that is being made is nominated to the pod it is made for. Decides by the ledger, changes it nowhere.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Protocol, TypeVar

from msgspec import Struct

from hami.kube import paths
from hami.kube.errors import NotFound, TooMany
from hami.ledger.records import PodRecord
from hami.model.ask import Ask, PodRef
from hami.model.errors import HamiError
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.exact.fit import fit
from hami.plan.exact.preempt import Holder, cost, searching
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps
from hami.scheduler.budgets import DisruptionBudget, budget_entries, costs, overdrawn
from hami.scheduler.engine import Engine
from hami.scheduler.held.nominate import Nomination, note
from hami.scheduler.held.waiting import Waiter
from hami.scheduler.loop.shares import Shares
from hami.scheduler.loop.unhurried import unhurried
from hami.wire.annotations import NOMINATED
from hami.wire.objects import Pod
from hami.wire.snapshot import BudgetEntry

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERY = 1.0
"""Seconds between looks at who waits."""
LOOKED_AT = 100
"""Nodes on which victims are looked for, at most; kube-scheduler looks at as many."""
OVERDUE = 10.0
"""Seconds after the end of its grace in which a pod that is being deleted is still expected to go."""
ROUND_S = 5.0
"""Seconds after which no more waiters are looked at in a round: who came meanwhile may be more important."""
CHOOSING_S = 2.0
"""Seconds for one choice, pauses and all: a node has its share of them, and when they have passed no further one is
looked at, unless none was found yet."""
PAUSE = 1.0
"""Times what it works: half of the loop at most."""
BUDGET_AGAIN = 10.0
"""Seconds after which a pod whose disruption budget was spent may be asked about again."""
TRIES = 8
"""Choices tried for one pod in one look, each without the pods whose budgets refused the one before."""


class Api(Protocol):
    """What evicting needs of `kube.client.Kube`."""

    async def create(self, path: str, body: object) -> bytes: ...
    async def patch(self, path: str, body: object) -> bytes: ...
    async def get(self, path: str, type: type[T]) -> T: ...  # noqa: A002
    async def list(self, path: str, type: type[T]) -> "list[T]": ...  # noqa: A002


class Choice(Struct, frozen=True):
    """A node and who must go there."""

    node: NodeName
    victims: tuple[Holder, ...]


class Evictor:
    """Makes room for waiting pods of higher priority, the most important first."""

    def __init__(
        self,
        engine: Engine,
        kube: Api,
        preempted: Callable[[PodRef, PodRef, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`preempted` is told victim, pod and node of each eviction; `now` is unix seconds."""
        self._engine = engine
        self._kube = kube
        self._preempted = preempted
        self._now = now
        self._kept: dict[PodUid, float] = {}
        """Pods whose budget allows no eviction now, and until when that is taken for true."""
        self._looked: dict[PodUid, float] = {}
        """When each waiter was last tried at the time of our look: nothing new, nothing to look for."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.round()

    async def round(self) -> int:
        """One look at who waits; how many pods room is being made for."""
        leaving, bound = self._engine.leaving, self._engine.ledger.pods()
        for uid in [uid for uid in leaving if uid not in bound]:
            del leaving[uid]  # a follower is told of them as well
        if self._engine.gate.closed:
            return 0
        now, made = self._engine.clock(), 0
        if any(until <= now for until in self._kept.values()):
            self._looked.clear()  # nothing is new but a budget, which may have given way
        self._kept = {uid: until for uid, until in self._kept.items() if until > now}
        self._looked = {uid: at for uid, at in self._looked.items() if self._engine.waiting.get(uid)}
        self._engine.nominations.forget(now, self._engine.waiting)
        for waiter in list(self._engine.waiting.in_order()):
            if self._engine.clock() - now >= ROUND_S:
                break  # the others are still to be looked at in the next one
            if self._wants(waiter) and self._waits(waiter):
                self._looked[waiter.ask.pod.uid] = waiter.tried
                try:
                    made += await self._make_room(waiter)
                except Exception:  # a fault over one pod ends no scheduler, which would meet it again at its start
                    log.exception("no room is made for pod %s", waiter.ask.pod)
        return made

    def _wants(self, waiter: Waiter) -> bool:
        """Whether there is something new to look at for it."""
        ask = waiter.ask
        if not ask.preempts or ask.gang is not None or self._engine.nominations.of(ask.pod.uid):
            return False
        return self._looked.get(ask.pod.uid) != waiter.tried

    def _waits(self, waiter: Waiter) -> bool:
        """Whether it still waits, and for us: while we looked at others, or asked, it may have got its room, or another
        replica may have taken over."""
        return not self._engine.gate.closed and self._engine.waiting.get(waiter.ask.pod.uid) is waiter

    async def _make_room(self, waiter: Waiter) -> bool:
        for _ in range(TRIES):
            choice = await self.choose(waiter.ask, waiter.offered)
            if choice is None:
                return False
            if not choice.victims:
                return False  # there is room already, or it comes: kube-scheduler will come by itself
            if await self._all_may_go(choice):
                over = await self._too_many(choice)
                if over is None or not self._waits(waiter):
                    return False
                if not over:
                    return await self._evict(waiter.ask, choice)
        return False

    async def choose(self, ask: Ask, offered: Sequence[str]) -> Choice | None:
        """The node where the least is lost. Changes nothing, and lets /filter by every millisecond."""
        return await unhurried(self._choosing(ask, offered), pause=PAUSE)

    def _choosing(self, ask: Ask, offered: Sequence[str]) -> Steps[Choice | None]:
        best: tuple[tuple[int, int, int, int], str, Choice] | None = None
        looked, evicted = 0, self._evicted()
        shares = Shares(self._engine.clock, CHOOSING_S, min(len(offered), LOOKED_AT))
        ask = self._engine.ledger.within_quota(ask)  # for one that its quota keeps out nobody has to go
        for name in map(NodeName, offered):
            yield
            pods, state = self._engine.ledger.pods_on(name), self._engine.ledger.node(name)
            going, lower = self._going(pods, evicted), self._lower(ask, pods, evicted)
            if state is None or state.problem is not None or not (lower or going):
                continue
            state = self._to_come(ask, state, going)
            found = yield from searching(ask, state, lower, best[0] if best else None, shares.next())
            if found is not None and (best is None or (cost(found), name) < best[:2]):
                best = (cost(found), name, Choice(name, found))
            looked += 1
            if looked == LOOKED_AT or (best and shares.over):
                break
        return best[2] if best else None

    def _going(self, pods: Sequence[PodRecord], evicted: AbstractSet[PodUid]) -> list[PodRecord]:
        """Those whose room comes by itself: being deleted, or evicted for somebody. Who should be gone by now and is
        not may never go."""
        leaving, now = self._engine.leaving, self._now()
        return [pod for pod in pods if pod.ref.uid in evicted or now < leaving.get(pod.ref.uid, 0.0) + OVERDUE]

    def _evicted(self) -> set[PodUid]:
        """Who goes for a pod that waits for it."""
        return {uid for one in self._engine.nominations for uid in one.victims}

    def _to_come(self, ask: Ask, state: NodeState, going: Sequence[PodRecord]) -> NodeState:
        """The node once they have gone, and those have come for whom room is made and who are no less important."""
        for pod in going:
            state = state.without(pod.charges)
        for one in self._engine.nominations:
            if one.node == state.name and one.ask.priority >= ask.priority:
                plan = fit(one.ask, state)
                state = state.bearing(plan.charges) if isinstance(plan, Plan) else state
        return state

    def _lower(self, ask: Ask, pods: Sequence[PodRecord], evicted: AbstractSet[PodUid]) -> list[Holder]:
        """Those that may go for `ask`. Who keeps a budget stays, and who goes anyway is nobody's victim."""
        spared = (self._kept, self._engine.leaving, evicted)
        return [
            Holder(pod.ref, pod.charges, pod.priority)
            for pod in pods
            if pod.priority < ask.priority and not any(pod.ref.uid in uids for uids in spared)
        ]

    async def _all_may_go(self, choice: Choice) -> bool:
        """A dry run of every eviction. Remembers whose budget refuses."""
        may = True
        for victim in choice.victims:
            try:
                await self._post(victim.pod, dry=True)
            except NotFound:
                continue
            except TooMany:
                self._keep(victim)
                may = False
            except HamiError as fault:
                log.warning("pod %s cannot be evicted: %s", victim.pod, fault)
                self._keep(victim)
                may = False
        return may

    async def _too_many(self, choice: Choice) -> set[PodUid] | None:
        """Each dry run saw its budget whole: who is too many for one, and is kept, the most important first.
        None where nobody can tell."""
        if len(choice.victims) < 2:
            return set()
        try:
            over = overdrawn(await self._budgets(choice), [victim.pod.uid for victim in choice.victims])
        except HamiError as fault:
            log.warning("disruption budgets cannot be read, so not several pods at once are evicted: %s", fault)
            return None
        for victim in choice.victims:
            if victim.pod.uid in over:
                self._keep(victim)
        return over

    async def _budgets(self, choice: Choice) -> Sequence[BudgetEntry]:
        pods = []
        for victim in choice.victims:
            with suppress(NotFound):
                pods.append(await self._kube.get(paths.pods(victim.pod.namespace, victim.pod.name), Pod))
        budgets: list[DisruptionBudget] = []
        for namespace in sorted({victim.pod.namespace for victim in choice.victims}):
            path = paths.resource("policy/v1", "poddisruptionbudgets", namespace)
            budgets += await self._kube.list(path, DisruptionBudget)
        return budget_entries(budgets, [pod for pod in pods if costs(pod)])

    def _keep(self, victim: Holder) -> None:
        self._kept[victim.pod.uid] = self._engine.clock() + BUDGET_AGAIN

    async def _evict(self, ask: Ask, choice: Choice) -> bool:
        """Nominate first: what comes free must not go to somebody else meanwhile, nor while we restart."""
        gone = frozenset(victim.pod.uid for victim in choice.victims)
        nomination = Nomination(ask, choice.node, gone, self._engine.clock())
        self._engine.nominations.add(nomination)
        await self._note(nomination)
        for victim in choice.victims:
            try:
                await self._post(victim.pod, dry=False)
            except NotFound:
                continue
            except HamiError as fault:
                log.warning("pod %s was not evicted: %s", victim.pod, fault)
                self._keep(victim)
                self._engine.nominations.drop(ask.pod.uid)
                return False
            self._preempted(victim.pod, ask.pod, choice.node)
            self._engine.meters.preempted.inc()
        return True

    async def _note(self, nomination: Nomination) -> None:
        pod = nomination.ask.pod
        body = {"metadata": {"uid": pod.uid, "annotations": {NOMINATED: note(nomination, self._now())}}}
        try:
            await self._kube.patch(paths.pods(pod.namespace, pod.name), body)
        except HamiError as fault:
            log.warning("room is being made for pod %s, and a restart would forget it: %s", pod, fault)

    async def _post(self, pod: PodRef, *, dry: bool) -> None:
        options = {"preconditions": {"uid": pod.uid}, **({"dryRun": ["All"]} if dry else {})}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": options,
        }
        await self._kube.create(paths.pods(pod.namespace, pod.name, "eviction"), body)
