"""The files of a cluster: what is written is read again, and what is no such file is refused by name."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.unit.plan import builders as make

from hami.model.ask import Ask, PodRef
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Slice
from hami.model.quota import Measure
from hami.wire import record, snapshot
from hami.wire.record import NodeGone, NodeSeen, PodArrived, PodBound, PodLeft, Start, Synced
from hami.wire.snapshot import (
    AskEntry,
    BudgetEntry,
    LimitEntry,
    NodeEntry,
    PodEntry,
    QuotaEntry,
    Snapshot,
    card_entry,
)

NODE = NodeEntry(NodeName("n1"), (card_entry(make.card("d0"), cordoned=True), card_entry(make.card("d1"))))
ASK = AskEntry.of(make.pod(make.app(make.want(8000, cores=30, use_types=("A100",)))))
SLICES = ((Slice(CardId("d0"), Family("NVIDIA"), 8000, 30),),)
POD = PodEntry("ns", "p", PodUid("u"), ASK, NodeName("n1"), SLICES, created=17.25)
QUOTA = QuotaEntry("ns", "q", (LimitEntry("nvidia.com/gpumem", Family("NVIDIA"), Measure.MEMORY, 80000),))
WHOLE = Snapshot(1.5, (NODE,), (POD,), (BudgetEntry("ns", "b", 1, (PodUid("u"),)),), (QUOTA,))
LINES = [
    Start(1.0),
    NodeSeen(1.0, NODE),
    PodArrived(1.0, POD),
    Synced(1.5),
    PodBound(2.0, PodUid("u"), NodeName("n1"), SLICES),
    PodLeft(3.0, PodUid("u"), "Deleted"),
    NodeGone(4.0, NodeName("n1")),
]

WRITTEN = (
    b'{"at":1.5,"nodes":[{"name":"n1","cards":[{"id":"d0","family":"NVIDIA","model":"NVIDIA-A100","index":0,'
    b'"slots":10,"mem_mib":8000,"cordoned":true},{"id":"d1","family":"NVIDIA","model":"NVIDIA-A100","index":1,'
    b'"slots":10,"mem_mib":8000}]}],"pods":[{"namespace":"ns","name":"p","uid":"u","ask":{"containers":'
    b'[{"name":"app","cards":[{"family":"NVIDIA","cards":1,"core_percent":30,"mem_mib":8000,"rules":'
    b'{"use_types":["A100"]}}]}]},"node":"n1","slices":[[{"card":"d0","family":"NVIDIA","mem_mib":8000,'
    b'"core_percent":30}]],"created":17.25}],"budgets":[{"namespace":"ns","name":"b","allowed":1,"pods":["u"]}],'
    b'"quotas":[{"namespace":"ns","name":"q","limits":[{"resource":"nvidia.com/gpumem","family":"NVIDIA",'
    b'"measure":"memory","most":80000}]}],'
    b'"policies":{"node":"binpack","card":["spread"]},"version":1,"kind":"hami.io/snapshot"}\n'
)
"""The promise: files of version 1 look like this."""


def test_a_snapshot_is_written_as_promised_and_read_again() -> None:
    assert snapshot.encode(WHOLE) == WRITTEN
    assert snapshot.decode(WRITTEN) == WHOLE


def test_what_was_written_before_quotas_were_is_read_too() -> None:
    before = WRITTEN[: WRITTEN.index(b'"quotas"')] + WRITTEN[WRITTEN.index(b'"policies"') :]
    assert snapshot.decode(before) == replace(WHOLE, quotas=())


@pytest.mark.parametrize(
    ("twice", "path"),
    [
        ({"nodes": (NODE, NODE)}, "c.json.nodes[1].name"),
        ({"pods": (POD, POD)}, "c.json.pods[1].uid"),
        ({"nodes": (replace(NODE, cards=(*NODE.cards, NODE.cards[0])),)}, "c.json.nodes[0].cards[2].id"),
    ],
)
def test_what_stands_there_twice_is_named(twice: dict[str, Any], path: str) -> None:
    with pytest.raises(Malformed) as fault:
        snapshot.decode(snapshot.encode(replace(WHOLE, **twice)), "c.json")
    assert fault.value.path == path


def test_a_later_field_does_not_hurt_an_earlier_reader() -> None:
    later = WRITTEN.replace(b'{"name":"n1",', b'{"name":"n1","colour":"red",')
    assert snapshot.decode(later) == WHOLE


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_asks_and_cards_come_back_as_they_were(seed: int) -> None:
    random = Random(seed)
    ask: Ask = make.random_ask(random)
    pod = PodRef("ns", "pod", PodUid("u"))
    entry = PodEntry(pod.namespace, pod.name, pod.uid, AskEntry.of(ask))
    cards: list[Card] = [state.card for state in make.random_node(random).cards]
    node = NodeEntry(NodeName("n"), tuple(card_entry(card) for card in cards))
    read = snapshot.decode(snapshot.encode(Snapshot(0.0, (node,), (entry,))))
    assert read.pods[0].ask is not None
    assert read.pods[0].ask.ask(pod) == ask
    assert [one.card() for one in read.nodes[0].cards] == cards


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{}", "f.kind"),
        (b"[1]", "f"),
        (b"{nope", "f"),
        (WRITTEN.replace(b'"version":1', b'"version":2'), "f.version"),
        (WRITTEN.replace(b'"slots":10', b'"slots":-1'), "f.nodes[0].cards[0].slots"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_its_place(body: bytes, path: str) -> None:
    with pytest.raises(Malformed) as refused:
        snapshot.decode(body, "f")
    assert refused.value.path == path


def test_a_record_is_read_line_by_line() -> None:
    written = [record.encode(line) for line in LINES]
    assert written[0].startswith(b'{"event":"start","at":1.0,')
    assert list(record.decode(written)) == LINES


def test_a_last_line_cut_in_the_middle_is_left_out_and_any_other_is_named() -> None:
    written = [record.encode(line) for line in LINES]
    assert list(record.decode([*written[:2], written[2][:30]])) == LINES[:2]
    with pytest.raises(Malformed) as refused:
        list(record.decode([written[0], b'{"event":"pod"\n', written[1]], "f"))
    assert refused.value.path == "f:2"


@pytest.mark.parametrize("lines", [[], [b"\n"], [record.encode(LINES[1])], [b'{"event":"start","at":1,"version":9}\n']])
def test_a_file_that_begins_otherwise_is_no_record(lines: list[bytes]) -> None:
    with pytest.raises(Malformed, match=r"hami\.io/record|record"):
        list(record.decode(lines))
