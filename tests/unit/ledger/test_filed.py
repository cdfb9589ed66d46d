"""A snapshot file read back: who holds what, what is asked, who waits."""

from hami.ledger.filed import node_record, pod_record, quota_record, rebuilt
from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, Slice
from hami.model.quota import Limit, Measure, Quantum
from hami.wire.snapshot import AskEntry, LimitEntry, NodeEntry, PodEntry, QuotaEntry, Snapshot, card_entry

NVIDIA = Family("NVIDIA")
CARDS = tuple(Card(CardId(name), NVIDIA, "A100", place, 10, 8000, 100) for place, name in enumerate(("a", "b")))
LINKS = {CardId("a"): {CardId("b"): 5}}
REF = PodRef("ns", "p", PodUid("u"))
SLICES = ((Slice(CardId("a"), NVIDIA, 4000, 0),), (Slice(CardId("a"), NVIDIA, 1000, 0),))


def asks(*kinds: ContainerKind) -> AskEntry:
    want = (CardAsk(NVIDIA, 1, 0, mem_mib=1),)
    return AskEntry.of(Ask(REF, tuple(ContainerAsk("c", kind, want) for kind in kinds)))


def entry(**fields: object) -> PodEntry:
    given = {"node": NodeName("n"), "slices": SLICES, "ask": asks(ContainerKind.INIT, ContainerKind.APP)} | fields
    return PodEntry("ns", "p", PodUid("u"), **given)  # type: ignore[arg-type]


def test_a_node_comes_back_with_cordons_problem_and_links() -> None:
    told = NodeEntry(NodeName("n"), (card_entry(CARDS[0], True), card_entry(CARDS[1], False)), "silent", LINKS)
    assert node_record(told) == NodeRecord(NodeName("n"), CARDS, frozenset({CardId("a")}), "silent", LINKS)


def test_a_pod_is_charged_by_the_kinds_of_its_containers() -> None:
    def charged(told: PodEntry) -> tuple[Charge, ...]:
        record = pod_record(told)
        assert record is not None
        return record.charges

    assert charged(entry()) == (Charge(CardId("a"), 1, 4000, 0),)
    assert charged(entry(init_done=True)) == (Charge(CardId("a"), 1, 1000, 0),)
    assert charged(entry(ask=None)) == (Charge(CardId("a"), 2, 5000, 0),), "all at once where nobody knows"
    assert charged(entry(ask=asks(ContainerKind.INIT))) == (Charge(CardId("a"), 2, 5000, 0),)
    assert pod_record(entry(priority=7, problem="unreadable", slices=())) == PodRecord(
        REF, NodeName("n"), (), (), 7, (), "unreadable"
    )
    assert pod_record(entry(node=None)) is None


def test_a_cluster_comes_back_with_what_is_asked_and_who_waits() -> None:
    waiting = PodEntry("ns", "w", PodUid("w"), asks(ContainerKind.APP))
    stranger = PodEntry("ns", "s", PodUid("s"), None, NodeName("n"), (SLICES[0],))
    node = NodeEntry(NodeName("n"), tuple(card_entry(card, False) for card in CARDS))
    filed = rebuilt(Snapshot(0.0, (node,), (entry(), waiting, stranger)))
    assert filed.waiting == (waiting,)
    assert set(filed.asks) == {"u", "w"}
    assert filed.ask_of(PodRef("ns", "s", PodUid("s"))) is None
    state = filed.ledger.node(NodeName("n"))
    assert state is not None
    assert [one.used_mem_mib for one in state.cards] == [8000, 0]
    assert filed.ledger.recount() == []


def test_quotas_come_back_line_by_line() -> None:
    told = QuotaEntry("ns", "q", (LimitEntry("requests.gpumem", NVIDIA, Measure.MEMORY, 9000, 1024),))
    record = QuotaRecord("ns", "q", (Limit(Quantum("requests.gpumem", NVIDIA, Measure.MEMORY, 1024), 9000),))
    assert quota_record(told) == record
    ledger = rebuilt(Snapshot(0.0, (), (), quotas=(told,))).ledger
    assert list(ledger.quotas.names()) == [("ns", "q")]
    assert ledger.quotas.limited("ns")
