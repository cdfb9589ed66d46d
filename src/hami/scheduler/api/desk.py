"""The HTTP side of the questions: who may ask, how often, and that /filter never waits for an answer.

Answers are worked out in slices of a millisecond with pauses between them, a few at a time; more are told to
come again. Decides nothing and changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.kube.pace import Bucket
from hami.ledger.survey import Survey, survey, with_asks
from hami.model.ask import Ask, PodRef
from hami.model.errors import HamiError, Malformed, Unavailable
from hami.model.ids import PodUid
from hami.plan.advice.fixes import Change
from hami.plan.advice.fragmentation import measure
from hami.plan.advice.residents import stand_in
from hami.plan.advice.typical import learning
from hami.plan.steps import Steps
from hami.scheduler.api.access import Access, Denied, User, certified
from hami.scheduler.api.answers import OTHERWISE, Explained, Fragmented, discreet, namespaces, own, whole
from hami.scheduler.engine import Engine
from hami.scheduler.loop.unhurried import unhurried
from hami.vendors.trial import trial_ask, trial_notes, trial_pod
from hami.wire.faults import decoded
from hami.wire.objects import Pod

log = logging.getLogger(__name__)

T = TypeVar("T")
EXPLAIN, FIT, FRAG = "/api/v1/explain", "/api/v1/fit", "/api/v1/frag"
LIMIT = 64 << 10
"""Bytes of a body; a pod with all its environment may be larger, and needs none of it here."""
AT_ONCE = 2
WAITING = 16
"""Answers being worked out, and those that wait for their turn."""
RATE, BURST = 20.0, 40.0
"""Questions a second, of all people together."""
RATE_EACH, BURST_EACH = 4.0, 12.0
PEOPLE = 1000
LONGEST_S = 20.0
NODES = 64
"""Most nodes looked at closely, whatever is asked."""

_AWAITED = Awaitable[web.StreamResponse]


class Question(Struct, frozen=True):
    """The body of a POST to /api/v1/fit: what a container would ask, or a whole pod."""

    limits: dict[str, str | int | float] = {}
    """Resources by name, or by the part after the slash: ``{"gpu": 2, "gpumem": 10000}``."""
    annotations: dict[str, str] = {}
    namespace: str = "default"
    pod: Pod | None = None
    """In place of all of the above."""


_question = msgspec.json.Decoder(Question).decode


class Desk:
    """Answers questions. Give `calls` to the edge."""

    def __init__(
        self,
        engine: Engine,
        kube: Kube,
        access: Access,
        *,
        certificates: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._kube = kube
        self._access = access
        self._certificates = certificates
        """Whether client certificates name Kubernetes users."""
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._all = Bucket(RATE, BURST, clock)
        self._each: dict[str, Bucket] = {}

    @property
    def calls(self) -> dict[str, Callable[[web.BaseRequest], _AWAITED]]:
        return {
            EXPLAIN: self._call(self.explain, "GET"),
            FIT: self._call(self.fit, "POST"),
            FRAG: self._call(self.frag, "GET"),
        }

    # -- the three questions ------------------------------------------------------

    async def explain(self, request: web.BaseRequest, user: User) -> object:
        """Why the pod of ?namespace=&name= is where it is, or waits."""
        namespace, name = _required(request, "namespace"), _required(request, "name")
        await self._access.need(user, "get", "pods", namespace, name)
        try:
            pod = await self._kube.get(paths.pods(namespace, name), Pod)
        except NotFound:
            raise Absent(f"there is no pod {namespace}/{name}") from None
        if pod.finished:
            raise Absent(f"pod {namespace}/{name} has ended ({pod.status.phase}) and holds no cards")
        ask = self._engine.ask(pod)
        if ask.empty:
            raise Absent(f"pod {namespace}/{name} asks for no card")
        answer = await self._surveyed(request, user, ask)
        return replace(answer, notes=self._waits_for(ask)) if answer.fits else answer

    async def fit(self, request: web.BaseRequest, user: User) -> object:
        """Whether the ask in the body would fit now. For who may make pods there, or see nodes."""
        question = decoded(_question, await _body(request), "$")
        pod = question.pod
        namespace = (pod.metadata.namespace if pod is not None else question.namespace) or "default"
        if not await self._access.may(user, "get", "nodes"):
            await self._access.need(user, "create", "pods", namespace)
        vendors = self._engine.vendors
        if pod is None:
            pod = trial_pod(question.limits, question.annotations, namespace, vendors)
        answer = await self._surveyed(request, user, trial_ask(pod, vendors, self._engine.policies))
        return replace(answer, notes=trial_notes(pod, vendors))

    async def frag(self, _: web.BaseRequest, user: User) -> object:
        """How many of each typical ask still fit. For who may see nodes."""
        await self._access.need(user, "get", "nodes")
        return await self._in_turn(self._fragmentation())

    async def _surveyed(self, request: web.BaseRequest, user: User, ask: Ask) -> Explained:
        closely = _number(request, "nodes", 16, NODES)
        found = await self._in_turn(self._survey(ask, closely))
        moved = [fix.pod for fix in found.fixes if fix.change is Change.MOVE_POD and fix.pod is not None]
        if moved:
            asks = await self._asks(moved)
            found = await self._in_turn(with_asks(self._engine.ledger, found, lambda pod: asks.get(pod.uid)))
        if not await self._access.may(user, "get", "nodes"):
            return own(found)
        answer = whole(found)
        seen = [name for name in sorted(namespaces(answer)) if await self._access.may(user, "get", "pods", name)]
        return discreet(answer, frozenset(seen))

    def _waits_for(self, ask: Ask) -> tuple[str, ...]:
        """Why a pod waits whose cards are there; nothing of one that is bound or on its way."""
        ledger, waiter = self._engine.ledger, self._engine.waiting.get(ask.pod.uid)
        if ledger.pod(ask.pod.uid) is not None or ledger.reservation(ask.pod.uid) is not None:
            return ()
        return (waiter.held_back if waiter is not None and waiter.held_back else OTHERWISE,)

    async def _asks(self, pods: Sequence[PodRef]) -> dict[PodUid, Ask]:
        """What these pods ask, for the ledger has only what they hold. Who cannot be read is left out."""
        found: dict[PodUid, Ask] = {}
        for ref in pods:
            with suppress(HamiError):
                pod = await self._kube.get(paths.pods(ref.namespace, ref.name), Pod)
                if pod.metadata.uid == ref.uid:
                    found[ref.uid] = self._engine.ask(pod)
        return found

    def _survey(self, ask: Ask, closely: int) -> Steps[Survey]:
        return survey(self._engine.ledger, ask, closely=closely)

    def _fragmentation(self) -> Steps[Fragmented]:
        ledger = self._engine.ledger
        nodes = sorted(ledger.nodes(), key=lambda node: node.name)
        pods = list(ledger.pods().values())
        waiting = [waiter.ask for waiter in self._engine.waiting.in_order()]
        running = (stand_in(one.ref, one.containers) for one in pods)  # made one by one, in the steps of `learning`
        typical = yield from learning(chain(waiting, running), nodes)
        found = yield from measure(typical, nodes)
        return Fragmented(fragmentation=found, nodes=len(nodes), cards=sum(len(node.cards) for node in nodes))

    # -- manners ------------------------------------------------------------------

    def _call(
        self, answer: Callable[[web.BaseRequest, User], Awaitable[object]], method: str
    ) -> Callable[[web.BaseRequest], _AWAITED]:
        async def call(request: web.BaseRequest) -> web.StreamResponse:
            if request.method != method:
                return problem(405, f"{request.path} is for {method}")
            try:
                return web.Response(
                    body=msgspec.json.encode(await self._heard(request, answer)), content_type="application/json"
                )
            except web.HTTPException as refusal:
                return problem(refusal.status, refusal.text or refusal.reason)
            except HamiError as fault:
                return problem(status_of(fault), str(fault))
            except Exception:
                log.exception("%s failed", request.path)
                return problem(500, "the answer failed inside the scheduler; its log says why")

        return call

    async def _heard(
        self, request: web.BaseRequest, answer: Callable[[web.BaseRequest, User], Awaitable[object]]
    ) -> object:
        """Not too much at once, from somebody known, when there is something to tell."""
        if not self._all.spare():
            raise Crowded("too many questions at once; ask again in a second")
        if self._engine.gate.closed:
            raise Unavailable(f"this replica cannot tell now: {self._engine.gate.closed}")
        user = self._by_certificate(request) or await self._access.user(request.headers)
        if not self._bucket(user).spare():
            raise Crowded(f'too many questions from "{user.username}"; ask again in a second')
        return await answer(request, user)

    def _by_certificate(self, request: web.BaseRequest) -> User | None:
        if not self._certificates or request.transport is None:
            return None
        return certified(request.transport.get_extra_info("peercert"))

    def _bucket(self, user: User) -> Bucket:
        if user.username not in self._each:
            if len(self._each) >= PEOPLE:
                self._each.clear()
            self._each[user.username] = Bucket(RATE_EACH, BURST_EACH, self._clock)
        return self._each[user.username]

    async def _in_turn(self, steps: Steps[T]) -> T:
        if self._waiting >= WAITING:
            raise Crowded("too many questions wait already; ask again in a second")
        self._waiting += 1
        try:
            async with self._turns, asyncio.timeout(LONGEST_S):
                return await unhurried(steps)
        except TimeoutError:
            raise Unavailable(f"the answer took longer than {LONGEST_S:g} s; the scheduler is busy") from None
        finally:
            self._waiting -= 1


class Absent(HamiError):
    """There is nothing to tell of."""


class Crowded(HamiError):
    """Ask again."""


def status_of(fault: HamiError) -> int:
    match fault:
        case Denied(status=status):
            return status
        case Absent():
            return 404
        case Crowded():
            return 429
        case Malformed():
            return 400
        case _:
            return 503


def problem(status: int, message: str) -> web.Response:
    """A refusal as the API server would put it, so that one reader reads both."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message}
    headers = {"Retry-After": "1"} if status == 429 else None
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)


async def _body(request: web.BaseRequest) -> bytes:
    if (request.content_length or 0) > LIMIT:
        raise web.HTTPRequestEntityTooLarge(LIMIT, request.content_length or 0, text=f"at most {LIMIT} bytes, please")
    try:
        async with asyncio.timeout(10.0):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not arrive within 10 s") from None


def _required(request: web.BaseRequest, name: str) -> str:
    given = request.rel_url.query.get(name, "")
    if not given or len(given) > 253:
        raise Malformed(f"?{name}=", given or None, f"the pod's {name}")
    return given


def _number(request: web.BaseRequest, name: str, default: int, most: int) -> int:
    given = request.rel_url.query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:6]) <= most):
        raise Malformed(f"?{name}=", given, f"a number from 1 to {most}")
    return int(given)
