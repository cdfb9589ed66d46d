"""Events on the pod, in HAMi's words, so that `kubectl describe pod` tells the story.

Told at most once as long as the story stays the same; the recorder has its own
budget and drops rather than waits, so a decision never waits for an event.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from hami.kube.events import EventKind, Regarding, of_node
from hami.kube.pace import Bucket
from hami.model.ask import PodRef
from hami.plan.choose import Decision
from hami.scheduler.held.waiting import Waiter

SPOKEN_NODES = 10
"""Node names an event names; the rest are counted."""
SPOKEN_REASONS = 4
GOOD_NEWS_PER_S, GOOD_NEWS_AT_ONCE = 5.0, 20.0
"""Events that all went well, beside kube-scheduler's own `Scheduled`: a Job of thousands of pods needs
the API server for better things."""


class Recorder(Protocol):
    """What a narrator needs of `kube.events.Recorder`; returns at once."""

    def record(self, regarding: PodRef | Regarding, kind: EventKind, reason: str, message: str) -> None: ...


class Narrator:
    """Tells about pods. Without a recorder it is silent, as in benchmarks of the engine alone."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder
        self._good_news = Bucket(GOOD_NEWS_PER_S, GOOD_NEWS_AT_ONCE)

    def placed(self, pod: PodRef, decision: Decision, offered: int) -> None:
        if self._recorder is None or decision.plan is None or not self._good_news.spare():
            return
        fit = len(decision.feasible)
        best = f"{decision.plan.node}:{decision.plan.score:.2f}"
        self._tell(
            pod,
            "Normal",
            "FilteringSucceed",
            f"find fit node({decision.plan.node}), {offered - fit} nodes not fit, {fit} nodes fit({best})",
        )

    def refused(
        self, waiter: Waiter, counts: Iterable[str], reasons: Callable[[], Mapping[str, str]], offered: int
    ) -> None:
        """No node fits: how many were asked, and who failed for what. `counts` has every reason there was;
        `reasons` has them by node, and is asked only when there is something new to tell."""
        if self._recorder is None:
            return
        told = f"{offered} {sorted(counts)}"
        if told == waiter.told:
            return
        waiter.told = told
        for line in (f"no available node, {offered} nodes do not meet", *by_reason(reasons())):
            self._tell(waiter.ask.pod, "Warning", "FilteringFailed", line)

    def advised(self, pod: PodRef, text: str) -> None:
        """What would help a pod that waits (`scheduler.api.advise`)."""
        self._tell(pod, "Normal", "WouldFit", text)

    def unusable(self, pod: PodRef, fault: str) -> None:
        self._tell(pod, "Warning", "FilteringFailed", fault)

    def bound(self, pod: PodRef, node: str) -> None:
        if self._recorder is not None and self._good_news.spare():
            self._tell(pod, "Normal", "BindingSucceed", f"Successfully binding node [{node}] to {pod}")

    def bind_failed(self, pod: PodRef, node: str, fault: str) -> None:
        self._tell(pod, "Warning", "BindingFailed", f"node {node}: {fault}")

    def preempted(self, victim: PodRef, pod: PodRef, node: str) -> None:
        """A pod is evicted so that a more important one fits."""
        self._tell(victim, "Normal", "Preempted", f"evicted from node {node} for its cards: {pod} is more important")
        self._tell(pod, "Normal", "Preempting", f"room is being made on node {node}: {victim} is evicted")

    def node_turned(self, node: str, problem: str | None) -> None:
        """A node was taken out of scheduling, or let in again."""
        if self._recorder is None:
            return
        if problem is None:
            self._recorder.record(of_node(node), "Normal", "CardsUsable", "the node's cards take pods again")
        else:
            self._recorder.record(of_node(node), "Warning", "CardsExcluded", f"no pod is placed here: {problem}")

    def _tell(self, pod: PodRef, kind: EventKind, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.record(pod, kind, reason, message)


def by_reason(reasons: Mapping[str, str]) -> list[str]:
    """``3 nodes CardInsufficientMemory(node1,node2,node3)``, the most frequent first."""
    nodes: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        nodes.setdefault(reason, []).append(name)
    frequent = sorted(nodes.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:SPOKEN_REASONS]
    return [f"{len(names)} nodes {reason}({listed(sorted(names))})" for reason, names in frequent]


def listed(names: list[str]) -> str:
    shown = ",".join(names[:SPOKEN_NODES])
    rest = len(names) - SPOKEN_NODES
    return shown if rest <= 0 else f"{shown} and {rest} more"
