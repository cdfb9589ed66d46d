"""The ledger under events and decisions in any order, against a list of who holds what."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from msgspec.structs import replace
from tests.unit.plan.cells import judge_row

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, NodePolicy, PodRef
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, Plan, Slice
from hami.model.reservation import ReservationState
from hami.plan.snapshot import NodeState

NVIDIA = Family("NVIDIA")
NAMES = tuple(NodeName(f"n{number}") for number in range(3))
TTL = 10.0


def random_record(random: Random, name: NodeName) -> NodeRecord:
    """Cards come, go, shrink and change places; an id may show up on another node."""
    ids = random.sample([f"{name}-a", f"{name}-b", f"{name}-c", "moving"], random.randrange(5))
    cards = tuple(
        Card(
            id=CardId(card),
            family=NVIDIA,
            model="A100",
            index=index,
            slots=random.choice((2, 3)),
            mem_mib=random.choice((8, 10)),
            core_percent=100,
            healthy=random.random() < 0.9,
        )
        for index, card in enumerate(ids)
    )
    cordoned = frozenset(card for card in ids if random.random() < 0.1)
    return NodeRecord(name, cards, cordoned, None if random.random() < 0.9 else "handshake timed out")


def random_ask(random: Random, uid: str) -> Ask:
    containers = tuple(
        ContainerAsk(
            "c",
            kind,
            (CardAsk(NVIDIA, random.choice((1, 1, 2)), random.choice((0, 30, 100)), mem_mib=random.randrange(6)),),
        )
        for kind in random.choice(
            (
                (ContainerKind.APP,),
                (ContainerKind.APP, ContainerKind.APP),
                (ContainerKind.INIT, ContainerKind.APP),
                (ContainerKind.SIDECAR, ContainerKind.INIT, ContainerKind.APP),
            )
        )
    )
    return Ask(PodRef("ns", f"pod-{uid}", PodUid(uid)), containers, random.choice(tuple(NodePolicy)), ("binpack",))


def told(ledger: Ledger) -> dict[str, NodeState]:
    """What a ledger says, but for generations, which count events."""
    return {state.name: replace(state, generation=0) for state in ledger.nodes()}


class Life(RuleBasedStateMachine):
    pending = Bundle("pending")
    held = Bundle("held")
    binding = Bundle("binding")
    bound = Bundle("bound")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.now = 0.0
        self.nodes: dict[NodeName, NodeRecord] = {}
        self.pods: dict[PodUid, PodRecord] = {}
        self.holds: dict[PodUid, tuple[Plan, float, ReservationState]] = {}
        self.count = 0

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        for name in NAMES:
            self.register(name, seed)

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32))
    def register(self, name: NodeName, seed: int) -> None:
        record = random_record(Random(seed), name)
        assert self.ledger.set_node(record) == (self.nodes.get(name) != record)
        assert not self.ledger.set_node(record)
        self.nodes[name] = record

    @rule(name=st.sampled_from(NAMES))
    def lose_node(self, name: NodeName) -> None:
        assert self.ledger.drop_node(name) == (name in self.nodes)
        self.nodes.pop(name, None)

    @rule(target=pending, seed=st.integers(0, 2**32))
    def arrive(self, seed: int) -> Ask:
        self.count += 1
        return random_ask(Random(seed), f"pod{self.count}")

    @rule(target=held, ask=consumes(pending))
    def place(self, ask: Ask) -> object:
        return ask if self._place(ask) else multiple()

    @rule(ask=held)
    def place_again(self, ask: Ask) -> None:
        hold = self.holds.get(ask.pod.uid)
        if ask.pod.uid in self.pods or (hold and hold[2] is ReservationState.BINDING):
            return
        before = told(self.ledger)
        fits = hold is None or hold[0].node not in self.nodes or self.ledger.fit(ask, hold[0].node)
        if hold and isinstance(fits, Plan):
            assert self.ledger.decide(ask).plan is not None
        assert told(self.ledger) == before
        self._place(ask)

    def _place(self, ask: Ask) -> bool:
        plan = self.ledger.decide(ask).plan
        if plan is None:
            return False
        self.ledger.reserve(ask, plan, self.now, TTL)
        self.holds[ask.pod.uid] = (plan, self.now + TTL, ReservationState.HELD)
        self._within_capacity(plan)
        return True

    def _within_capacity(self, plan: Plan) -> None:
        state = self.ledger.node(plan.node)
        assert state is not None
        charged = {charge.card for charge in plan.charges}
        for card in state.cards:
            if card.card.id in charged:
                assert card.used_slots <= card.card.slots
                assert card.used_mem_mib <= card.card.mem_mib
                assert card.used_core_percent <= card.card.core_percent

    @rule(target=binding, ask=held)
    def bind(self, ask: Ask) -> object:
        hold = self.holds.get(ask.pod.uid)
        if hold is None:
            return multiple()
        self.ledger.binding(ask.pod.uid, self.now, TTL)
        self.holds[ask.pod.uid] = (hold[0], self.now + TTL, ReservationState.BINDING)
        return ask

    @rule(ask=binding)
    def bind_fails(self, ask: Ask) -> None:
        self.ledger.release(ask.pod.uid)
        self.holds.pop(ask.pod.uid, None)

    @rule(target=bound, ask=consumes(binding), seed=st.integers(0, 2**32))
    def bind_arrives(self, ask: Ask, seed: int) -> object:
        hold = self.holds.get(ask.pod.uid)
        if hold is None or ask.pod.uid in self.pods:
            return multiple()
        node = hold[0].node if Random(seed).random() < 0.8 else Random(seed).choice(NAMES)
        return self._bound(PodRecord(ask.pod, node, hold[0].containers, hold[0].charges))

    @rule(target=bound, seed=st.integers(0, 2**32), name=st.sampled_from((*NAMES, NodeName("never seen"))))
    def find_bound(self, seed: int, name: NodeName) -> PodRecord:
        """A pod bound by somebody else, on cards that may not exist."""
        random = Random(seed)
        self.count += 1
        ref = PodRef("ns", "found", PodUid(f"found{self.count}"))
        if random.random() < 0.15:
            return self._bound(PodRecord(ref, name, problem="unreadable"))
        card = CardId(random.choice((f"{name}-a", f"{name}-b", "moving", "unknown")))
        mem = random.randrange(12)
        charges = (Charge(card, 1, mem, 20),)
        return self._bound(PodRecord(ref, name, ((Slice(card, NVIDIA, mem, 20),),), charges))

    def _bound(self, record: PodRecord) -> PodRecord:
        assert self.ledger.set_pod(record)
        assert not self.ledger.set_pod(record)
        self.pods[record.ref.uid] = record
        self.holds.pop(record.ref.uid, None)
        return record

    @rule(record=bound, seed=st.integers(0, 2**32))
    def shrink_or_move(self, record: PodRecord, seed: int) -> None:
        """Init containers are done, or the record is read anew."""
        now = self.pods.get(record.ref.uid)
        if now is None:
            return
        random = Random(seed)
        fewer = tuple(replace(one, mem_mib=random.randrange(one.mem_mib + 1)) for one in now.charges)
        after = replace(now, charges=fewer, problem=random.choice((None, now.problem, "unreadable")))
        if random.random() < 0.1:
            after = replace(after, node=random.choice(NAMES))
        assert self.ledger.set_pod(after) == (after != now)
        self.pods[record.ref.uid] = after

    @rule(record=consumes(bound))
    def finish(self, record: PodRecord) -> None:
        assert self.ledger.drop_pod(record.ref.uid) == (record.ref.uid in self.pods)
        assert not self.ledger.drop_pod(record.ref.uid)
        self.pods.pop(record.ref.uid, None)

    @rule(step=st.sampled_from((1.0, 5.0, 11.0)))
    def wait(self, step: float) -> None:
        self.now += step
        due = {uid for uid, (_, end, state) in self.holds.items() if end <= self.now and state is ReservationState.HELD}
        late = {uid for uid, (_, end, state) in self.holds.items() if end <= self.now and uid not in due}
        assert {one.plan.pod.uid for one in self.ledger.expire(self.now)} == due
        assert {one.plan.pod.uid for one in self.ledger.overdue(self.now)} == late
        for uid in due:
            del self.holds[uid]

    @invariant()
    def nothing_drifts(self) -> None:
        assert self.ledger.recount() == []

    @invariant()
    def every_card_bears_its_holders(self) -> None:
        holders = [(record.node, record.charges) for record in self.pods.values()]
        holders += [(plan.node, plan.charges) for plan, _, _ in self.holds.values()]
        assert {state.name for state in self.ledger.nodes()} == set(self.nodes)
        for state in self.ledger.nodes():
            for card in state.cards:
                mine = [one for node, all_ in holders if node == state.name for one in all_ if one.card == card.card.id]
                assert card.used_slots == sum(one.slots for one in mine)
                assert card.used_mem_mib == sum(one.mem_mib for one in mine)
                assert card.used_core_percent == sum(one.core_percent for one in mine)

    @invariant()
    def columns_say_what_the_cards_say(self) -> None:
        index = self.ledger._index
        assert set(index.rows) == set(self.nodes)
        for name, row in index.rows.items():
            state = self.ledger.node(NodeName(name))
            assert state is not None
            judge_row(index.columns, row, state)

    @invariant()
    def an_unreadable_pod_closes_its_node(self) -> None:
        closed = {record.node for record in self.pods.values() if record.problem}
        closed |= {name for name, record in self.nodes.items() if record.problem}
        assert {state.name for state in self.ledger.nodes() if state.problem} == closed & set(self.nodes)

    def teardown(self) -> None:
        """A ledger told the same in another order is the same; one that everybody left is empty."""
        events = [*self.nodes.values(), *self.pods.values()]
        Random(self.count).shuffle(events)
        again = Ledger()
        for uid in list(self.holds):
            self.ledger.release(uid)
        for record in (*events, *events):
            again.set_node(record) if isinstance(record, NodeRecord) else again.set_pod(record)
        assert told(again) == told(self.ledger)
        assert again.recount() == []
        for uid in self.pods:
            self.ledger.drop_pod(uid)
        for state in self.ledger.nodes():
            assert {card.use for card in state.cards} <= {(0, 0, 0)}
        for name in list(self.nodes):
            self.ledger.drop_node(name)
        assert self.ledger.recount() == []
        assert self.ledger.view().nodes == ()


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
