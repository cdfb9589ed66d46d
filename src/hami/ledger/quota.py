"""What each namespace has spent and may spend: derived from the same records as the cards' use.

Told by the ledger, in the same breath, of every pod that takes or gives back a slice. Several
ResourceQuota objects of a namespace all hold: the tightest limit of a resource counts.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from hami.model.ids import Family, PodUid
from hami.model.quota import Budget, Limit, Measure, Quantum, Spent

_Load = tuple[int, int, int]
"""Cards, MiB, percent."""

_NOTHING: _Load = (0, 0, 0)
_PLACE = {Measure.CARDS: 0, Measure.MEMORY: 1, Measure.CORES: 2}


class QuotaRecord(Struct, frozen=True):
    """The lines of one ResourceQuota that are about cards."""

    namespace: str
    name: str
    limits: tuple[Limit, ...] = ()


class Quotas:
    """Limits and use of all namespaces."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, QuotaRecord]] = {}
        self._pods: dict[PodUid, tuple[str, tuple[Spent, ...]]] = {}
        self._used: dict[str, dict[Family, _Load]] = {}

    def set(self, record: QuotaRecord) -> bool:
        """A quota is new or has changed; True if that means anything here."""
        there = self._records.get(record.namespace, {})
        if not record.limits:
            return self.drop(record.namespace, record.name)
        if there.get(record.name) == record:
            return False
        self._records.setdefault(record.namespace, {})[record.name] = record
        return True

    def drop(self, namespace: str, name: str) -> bool:
        """A quota is gone."""
        there = self._records.get(namespace, {})
        gone = there.pop(name, None)
        if not there:
            self._records.pop(namespace, None)
        return gone is not None

    def names(self) -> Iterator[tuple[str, str]]:
        """Namespace and name of every quota."""
        return ((namespace, name) for namespace, there in self._records.items() for name in there)

    def spend(self, uid: PodUid, namespace: str, spent: tuple[Spent, ...]) -> None:
        """What a pod takes now, in place of what it took."""
        old_namespace, old = self._pods.pop(uid, (namespace, ()))
        self._add(old_namespace, old, -1)
        if spent:
            self._pods[uid] = (namespace, spent)
            self._add(namespace, spent, 1)

    def give_back(self, uid: PodUid) -> None:
        """A pod takes nothing any more."""
        self.spend(uid, "", ())

    def limited(self, namespace: str) -> bool:
        return namespace in self._records

    def budgets(self, namespace: str, without: PodUid | None = None) -> tuple[Budget, ...]:
        """What the namespace may spend, as if pod `without` took nothing; empty where nothing is limited."""
        if namespace not in self._records:
            return ()
        own_namespace, own = self._pods.get(without, ("", ())) if without else ("", ())
        mine = {one.family: one for one in own} if own_namespace == namespace else {}
        return tuple(
            Budget(namespace, quantum, most, self.use(namespace, quantum) - _of(mine, quantum))
            for quantum, most in self._tightest(namespace).items()
        )

    def all(self) -> Iterator[Budget]:
        """Every limit with its use, for metrics, namespaces sorted."""
        for namespace in sorted(self._records):
            yield from self.budgets(namespace)

    def used(self) -> Mapping[str, Mapping[Family, _Load]]:
        """Cards, MiB and percent by namespace and family."""
        return self._used

    def differences(self, due: Mapping[PodUid, tuple[str, tuple[Spent, ...]]]) -> list[str]:
        """What is counted against what the records of all pods make."""
        due = {uid: entry for uid, entry in due.items() if entry[1]}
        fresh = Quotas()
        for uid, (namespace, spent) in due.items():
            fresh.spend(uid, namespace, spent)
        found = [] if self._pods == due else [f"quotas count pods {self._pods}, records say {due}"]
        if self._used != fresh._used:
            found.append(f"quotas count use {self._used}, records make {fresh._used}")
        return found

    def _tightest(self, namespace: str) -> dict[Quantum, int]:
        most: dict[Quantum, int] = {}
        for record in self._records[namespace].values():
            for limit in record.limits:
                most[limit.quantum] = min(limit.most, most.get(limit.quantum, limit.most))
        return dict(sorted(most.items(), key=lambda entry: entry[0].resource))

    def use(self, namespace: str, quantum: Quantum) -> int:
        """What the namespace's pods take of a resource, in the engine's unit."""
        return self._used.get(namespace, {}).get(quantum.family, _NOTHING)[_PLACE[quantum.measure]]

    def _add(self, namespace: str, spent: Iterable[Spent], sign: int) -> None:
        for one in spent:
            there = self._used.setdefault(namespace, {})
            cards, mem, cores = there.get(one.family, _NOTHING)
            load = (cards + sign * one.cards, mem + sign * one.mem_mib, cores + sign * one.core_percent)
            if load == _NOTHING:
                del there[one.family]
                if not there:
                    del self._used[namespace]
            else:
                there[one.family] = load


def _of(spent: Mapping[Family, Spent], quantum: Quantum) -> int:
    return spent[quantum.family].of(quantum.measure) if quantum.family in spent else 0
