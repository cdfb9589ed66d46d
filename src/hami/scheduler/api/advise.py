"""A word on the event of a pod that waits: the nearest change that makes it fit.

Worked out after the refusal, in the pauses of the loop, a pod at a time; /filter never waits for it. Told once as long
as the refusal stays the same. Events are read by all who may see the pod, so no other pod is named.
"""

import asyncio
import logging

from hami.ledger.survey import Survey, survey
from hami.model.ids import PodUid
from hami.plan.advice.fixes import Change
from hami.scheduler.engine import Engine
from hami.scheduler.loop.unhurried import unhurried

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between rounds."""
A_ROUND = 4
"""Pods advised in one: the rest come later, in the order in which they would be woken."""
CLOSELY = 4


class Adviser:
    """Advises the pods in `Waiting`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: dict[PodUid, str] = {}
        """The refusal that each pod was advised on."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            if self._engine.gate.closed is None:
                await self.round()

    async def round(self) -> None:
        """Advise a few whose refusal is new."""
        waiters = list(self._engine.waiting.in_order())
        self._told = {one.ask.pod.uid: told for one in waiters if (told := self._told.get(one.ask.pod.uid))}
        fresh = [one for one in waiters if one.told and self._told.get(one.ask.pod.uid) != one.told]
        for waiter in fresh[:A_ROUND]:
            self._told[waiter.ask.pod.uid] = waiter.told
            try:
                text = advice(await unhurried(survey(self._engine.ledger, waiter.ask, closely=CLOSELY)))
            except Exception:  # a fault over one pod ends no scheduler, which would meet it again at its start
                log.exception("pod %s gets no advice", waiter.ask.pod)
                continue
            if text is not None:
                self._engine.narrator.advised(waiter.ask.pod, text)


def advice(found: Survey) -> str | None:
    """The short form of the nearest fix; None where there is none, or where it fits by now."""
    nearest = found.nearest
    if nearest is None or found.bound is not None:
        return None
    if nearest.change in (Change.MOVE_POD, Change.END_POD):
        return f"it fits on {nearest.node} once a pod there is gone"
    return f"the nearest change that makes it fit: {nearest.text} (on {nearest.node})"
