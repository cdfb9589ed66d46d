"""/bind: give the pod to the node, its record in the same request.

One POST of a Binding whose annotations land on the pod together with its node
name, guarded by the pod's uid: there is no moment in which a pod is bound and
its record missing. Where the answer is lost, the slice stays taken until the
API server has told what became of it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from hami.kube import paths
from hami.kube.errors import NotFound, ServerFault, Unanswered
from hami.model.ask import Ask, CardRules, PodRef
from hami.model.errors import HamiError, Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.model.reservation import Reservation, ReservationState
from hami.plan.exact.rules import standing
from hami.plan.snapshot import NodeState
from hami.scheduler.engine import Engine
from hami.wire import annotations as keys
from hami.wire import extender
from hami.wire.objects import Pod

UNKNOWN_FATE = 120.0
"""Seconds a slice stays taken after a Binding without an answer. The API server gives a request
at most 60 s, so after that nothing can come of it any more."""

Stamp = Callable[[], float]
"""Unix seconds, for the record's times."""


class Api(Protocol):
    """What a bind needs of `kube.client.Kube`."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes: ...

    async def get(self, path: str, type: type[Pod]) -> Pod: ...  # noqa: A002


class Refused(HamiError):
    """The bind is refused, with the reason kube-scheduler logs."""


class Binder:
    """Binds pods one request each. `timeout` is seconds a Binding may take."""

    def __init__(self, engine: Engine, kube: Api, now: Stamp, timeout: float) -> None:
        self._engine = engine
        self._kube = kube
        self._now = now
        self._timeout = timeout
        self._open: Counter[PodUid] = Counter()
        """Bindings of a pod whose fate is not known: on their way, or without an answer. kube-scheduler
        may ask again meanwhile, and what the second is told says nothing about the first."""

    async def answer(self, body: bytes) -> bytes:
        """One /bind call, body to body. What goes wrong is said in ``Error``."""
        try:
            args = extender.decode_bind(body)
        except Malformed as fault:
            return extender.encode_bind_result(str(fault))
        pod = PodRef(args.pod_namespace, args.pod_name, PodUid(args.pod_uid))
        try:
            if self._engine.gate.closed:
                raise Refused(self._engine.gate.closed)
            await self.bind(pod, args.node)
        except HamiError as fault:
            self._engine.narrator.bind_failed(pod, args.node, str(fault))
            self._engine.meters.bind_failures.labels(type(fault).__name__).inc()
            return extender.encode_bind_result(str(fault))
        self._engine.narrator.bound(pod, args.node)
        return extender.encode_bind_result()

    async def bind(self, pod: PodRef, node: str) -> None:
        """Bind `pod` to `node`; raises a `HamiError` that says why not."""
        plan = await self.reserved(pod, node)
        if plan is None:
            await self._send(pod, node, {})
            return
        await self._with_gang(pod)
        try:
            plan = self._still(pod, node, plan)
            # From here to the answer the slice must not be given to anybody, whatever the clock says.
            self._engine.ledger.binding(pod.uid, self._engine.clock(), UNKNOWN_FATE)
            self._open[pod.uid] += 1
            await self._carry_out(pod, node, plan)
        except BaseException:
            self._engine.gangs.unbound(pod.uid)
            raise
        self._engine.waiting.settled(pod.uid)

    async def _carry_out(self, pod: PodRef, node: str, plan: Plan) -> None:
        """Send the Binding; return when the pod is bound as planned."""
        try:
            await self._send(pod, node, keys.records(plan, self._engine.vendors, self._now()))
        except (Unanswered, ServerFault) as fault:
            await self._find_out(pod, node, fault)
        except NotFound:
            self._engine.ledger.release(pod.uid)
            raise
        except HamiError as fault:
            # This request is refused; an earlier one of ours may stand all the same, and no watch has told yet.
            self._open[pod.uid] -= 1
            await self._find_out(pod, node, fault)
        self._open.pop(pod.uid, None)

    async def _with_gang(self, pod: PodRef) -> None:
        """A member of a gang is bound only when enough others are about to be."""
        hold = self._engine.ledger.reservation(pod.uid)
        if hold is None or hold.ask.gang is None or hold.state is ReservationState.BINDING:
            return
        why = await self._engine.gangs.assemble(hold.ask, hold.ask.gang)
        if why is not None:
            raise Refused(why)

    async def settle_overdue(self) -> None:
        """Look up what became of Bindings that had no answer and that no watch has told of."""
        for uid in [uid for uid in self._open if self._engine.ledger.reservation(uid) is None]:
            del self._open[uid]
        for hold in self._engine.ledger.overdue(self._engine.clock()):
            pod = hold.plan.pod
            try:
                found = await self._kube.get(paths.pods(pod.namespace, pod.name), Pod)
            except NotFound:
                found = None
            except HamiError:
                continue  # not now; the slice stays taken
            # Bound past us, or finished already: the watch has told that, before the slice was held, and tells no more.
            ours = found is not None and bound_to(found, pod, hold.plan.node) and not found.finished
            if not ours and self._engine.ledger.reservation(pod.uid) is hold:
                self._engine.ledger.release(pod.uid)

    async def reserved(self, pod: PodRef, node: str) -> Plan | None:
        """The plan the pod's slice on `node` is held by; None for a pod that asks for no card."""
        hold = self._engine.ledger.reservation(pod.uid)
        if hold is None:
            ask = await self._ask(pod)
            hold = self._engine.ledger.reservation(pod.uid)  # others were served while it was read
            if hold is None:
                return None if ask.empty else self._move(ask, node)
        return self._held(hold, node)

    def _held(self, hold: Reservation, node: str) -> Plan:
        """The plan of a hold; one that is elsewhere is moved to `node`, which kube-scheduler has chosen."""
        if hold.plan.node == node:
            return hold.plan
        if hold.state is ReservationState.BINDING:
            raise Refused(f"a Binding of the pod to {hold.plan.node} is on its way; its fate is not known yet")
        return self._move(hold.ask, node)

    def _still(self, pod: PodRef, node: str, plan: Plan) -> Plan:
        """What is held on `node` once the gang has come: `plan`, or another where the hold has run out and was made
        anew meanwhile, or where its cards are not to be had any more. Raises where there is none."""
        hold = self._engine.ledger.reservation(pod.uid)
        if hold is None:
            return plan  # `Ledger.binding` refuses it
        plan = self._held(hold, node)
        if hold.state is ReservationState.BINDING or stands(plan, self._engine.ledger.node(NodeName(node))):
            return plan
        return self._move(hold.ask, node)

    async def _ask(self, pod: PodRef) -> Ask:
        """The ask from the API server: the hold ran out, or this replica took over since /filter."""
        found = await self._kube.get(paths.pods(pod.namespace, pod.name), Pod)
        if found.metadata.uid != pod.uid:
            raise Refused(f"pod {pod} has uid {found.metadata.uid}, not {pod.uid}: it was replaced")
        return self._engine.ask(found)

    def _move(self, ask: Ask, node: str) -> Plan:
        """Take the slice on `node` instead of where it was held."""
        plan = self._engine.fit(ask, node)
        if isinstance(plan, Refusal):
            self._engine.ledger.release(ask.pod.uid)
            raise Refused(f"node {node} cannot take the pod: {plan.text}")
        self._engine.reserve(ask, plan)
        return plan

    async def _send(self, pod: PodRef, node: str, annotations: Mapping[str, str]) -> None:
        await self._kube.request(
            "POST",
            paths.pods(pod.namespace, pod.name, "binding"),
            body=binding(pod, node, annotations),
            timeout=self._timeout,
        )

    async def _find_out(self, pod: PodRef, node: str, fault: HamiError) -> None:
        """Return when the pod turns out bound as planned, by this request or by an earlier one. Else
        raise; the slice stays taken as long as a request of ours may still be carried out.
        """
        try:
            found = await self._kube.get(paths.pods(pod.namespace, pod.name), Pod)
        except NotFound:
            self._engine.ledger.release(pod.uid)
            raise Refused(f"pod {pod} is gone") from fault
        except HamiError:
            raise fault from None
        if bound_to(found, pod, node):
            return
        if bindable(found, pod):
            self._give_back(pod)
        else:
            self._engine.ledger.release(pod.uid)
        raise fault

    def _give_back(self, pod: PodRef) -> None:
        """The slice is free again, unless a Binding of unknown fate may still take it."""
        if self._open[pod.uid] <= 0:
            self._engine.ledger.release(pod.uid)


def stands(plan: Plan, node: NodeState | None) -> bool:
    """Whether what was held at /filter can still be given: node and cards may have gone, failed or been cordoned since,
    and a gang waits for many seconds in between."""
    if node is None or node.problem is not None:
        return False
    good = {state.card.id for state in node.cards if standing(CardRules(), state) is None and not state.overfull}
    return all(part.card in good for slices in plan.containers for part in slices)


def bound_to(found: Pod, pod: PodRef, node: str) -> bool:
    """Whether the API server has the pod on `node` with a record of ours."""
    recorded = (found.metadata.annotations or {}).get(keys.NODE)
    return found.metadata.uid == pod.uid and found.spec.node_name == node == recorded


def bindable(found: Pod, pod: PodRef) -> bool:
    """Whether the API server would still carry out a Binding of this very pod."""
    meta = found.metadata
    return meta.uid == pod.uid and not found.spec.node_name and meta.deletion_timestamp is None


def binding(pod: PodRef, node: str, annotations: Mapping[str, str]) -> dict[str, object]:
    """The Binding object; its uid keeps it from a successor of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "annotations": annotations},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
