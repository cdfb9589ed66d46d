"""The judge: what every card bears according to the API server alone, checked at each write to it."""

from collections.abc import Iterable

import msgspec

from hami.ledger.records import PodRecord
from hami.model.card import Card
from hami.model.ids import CardId, PodUid
from hami.model.vendor import Vendor
from hami.scheduler.watch.records import pod_record
from hami.sim.apiserver import Store
from hami.sim.apiserver.store import Change
from hami.wire.objects import Pod

WHOLE = 100
"""Percent of a card's cores that nobody else may share."""


class DoubleGrant(AssertionError):
    """A card bears more than it has."""


class Truth:
    """Told of every change of the store, after it."""

    def __init__(self, store: Store, cards: Iterable[Card], vendors: tuple[Vendor, ...]) -> None:
        self._cards = {card.id: card for card in cards}
        self._vendors = vendors
        self.records: dict[PodUid, PodRecord] = {}
        self.binds = 0
        store.on_change.append(self._changed)

    def _changed(self, change: Change) -> None:
        if change.resource != "v1/pods":
            return
        pod = msgspec.json.decode(change.after.encoded, type=Pod)
        uid = PodUid(pod.metadata.uid)
        before = self.records.pop(uid, None)
        record = None if change.gone or pod.finished else pod_record(pod, self._vendors)
        if record is None:
            return
        assert record.problem is None, record.problem
        self.records[uid] = record
        if before is None:
            self.binds += 1
        for charge in record.charges:
            self._judge(charge.card)

    def _judge(self, card_id: CardId) -> None:
        bearers = [
            (record.ref.name, charge)
            for record in self.records.values()
            for charge in record.charges
            if charge.card == card_id
        ]
        card = self._cards[card_id]
        slots = sum(charge.slots for _, charge in bearers)
        mem = sum(charge.mem_mib for _, charge in bearers)
        cores = sum(charge.core_percent for _, charge in bearers)
        alone = len(bearers) == 1 or not any(self._wants_alone(record, card_id) for record in self.records.values())
        if slots > card.slots or mem > card.mem_mib or cores > card.core_percent or not alone:
            raise DoubleGrant(f"card {card_id} of {card.slots} slots, {card.mem_mib} MiB bears {bearers}")

    @staticmethod
    def _wants_alone(record: PodRecord, card_id: CardId) -> bool:
        """Whether one of its containers has the whole card now; that of an init container ends with it."""
        if not any(charge.card == card_id and charge.core_percent == WHOLE for charge in record.charges):
            return False
        slices = [one for container in record.containers for one in container if one.card == card_id]
        return any(one.core_percent == WHOLE for one in slices)
