"""What the tests of the policy `pack` are built from, and a slow count of the same worth in a few plain lines."""

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind, NodePolicy, PodRef
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.plan.fleet.columns import Columns
from hami.plan.pack import Pack
from hami.plan.pack.demand import Demand
from hami.plan.pack.judged import Judged
from hami.plan.pack.prices import residues
from hami.plan.pack.scale import RESIDUES, SEVERAL, Scale, capacities, residue_of
from hami.plan.steps import finish

GPU = Family("GPU")
N = NodeName("n")
Shape = tuple[int, int, int, tuple[str, ...]]
"""MiB a card, cards, milli-CPU, types."""
SIZES = (110, 320, 470, 650, 810)


def card(node: str, index: int, model: str = "A") -> Card:
    return Card(CardId(f"{node}/{index}"), GPU, model, index, slots=100, mem_mib=1000, core_percent=100)


def ask(uid: str, mem: int, cards: int = 1, cpu: int = 0, types: tuple[str, ...] = ()) -> Ask:
    want = CardAsk(GPU, cards, 0, mem_mib=mem, rules=CardRules(use_types=types))
    containers = (ContainerAsk("main", ContainerKind.APP, (want,)),)
    return Ask(PodRef("ns", uid, PodUid(uid)), containers, NodePolicy.PACK, cpu_milli=cpu)


def ledger_of(*nodes: tuple[str, int, str, float]) -> Ledger:
    """(name, cards, model, free milli-CPU)"""
    ledger = Ledger()
    for name, cards, model, cpu in nodes:
        ledger.set_node(NodeRecord(NodeName(name), tuple(card(name, place, model) for place in range(cards))))
        ledger.set_host(NodeName(name), cpu)
    return ledger


def bind(ledger: Ledger, one: Ask, plan: Plan) -> None:
    ledger.reserve(one, plan, 0, 30)
    ledger.set_pod(PodRecord(plan.pod, plan.node, plan.containers, plan.charges))


def decided(ledger: Ledger, one: Ask) -> Plan:
    plan = ledger.decide(one).plan
    assert plan is not None
    return plan


def slow_worth(rooms: list[int], model: str, cpu: float, asks: list[Ask]) -> float:
    """Worth of one node, as the decision record defines it. Every shape counts: small mixes are under all bounds."""
    counts: dict[tuple[int, int, int, tuple[str, ...]], int] = {}
    for one in asks:
        want = one.containers[0].cards[0]
        key = (want.mem_mib or 0, want.cards, one.cpu_milli, want.rules.use_types)
        counts[key] = counts.get(key, 0) + 1
    ordered = sorted(counts.items(), key=lambda entry: -entry[1])
    frequent, singles = [], 0.0
    for key, count in ordered:
        if key[1] == 1 and singles < 0.95 * len(asks):
            singles += count
            frequent.append((key, float(count)))
    frequent += [(key, float(count)) for key, count in ordered if key[1] > 1][:12]
    covered = sum(count for _, count in frequent)
    shares: dict[int, float] = {}
    for (mem, cards, _, _), count in counts.items():
        if cards == 1:
            shares[mem] = shares.get(mem, 0.0) + count
    price = residues(shares)
    size_sum = sum(count * mem * cards for (mem, cards, _, _), count in frequent)
    seats, served = 0.0, 0.0
    for (mem, cards, need, types), count in frequent:
        weight = count / covered * mem * cards
        able = max(cpu, 0) / need if need else 1e9
        seat = sum(room // mem for room in rooms) if cards == 1 else sum(room >= mem for room in rooms) // cards
        if types and model not in types:
            seat = 0
        seats += weight * (1 if cards == 1 else SEVERAL) * min(seat, able)
        served += count * mem * cards / size_sum * min(1.0, able * mem * cards / max(sum(rooms), 1))
    return seats + RESIDUES * 1000 * sum(price[room] for room in rooms) * served


def rooms_of(ledger: Ledger, name: str) -> list[int]:
    state = ledger.node(NodeName(name))
    assert state is not None
    return [one.free_mem_mib for one in state.cards]


def fresh(seen: int) -> int:
    """How many asks had been seen when the scale in use was made: it is made anew at 1, 2, 3, 4, 6, 9, ..."""
    at = 1
    while at + max(at // 2, 1) <= seen:
        at += max(at // 2, 1)
    return at


def slow_options(rooms: list[int], mem: int, cards: int) -> list[list[int]]:
    if cards > 1:
        able = [place for place, room in enumerate(rooms) if room >= mem][:cards]
        return (
            [[room - mem if place in able else room for place, room in enumerate(rooms)]] if len(able) == cards else []
        )
    return [[*rooms[:place], room - mem, *rooms[place + 1 :]] for place, room in enumerate(rooms) if room >= mem]


def fresh_choice(ledger: Ledger, one: Ask) -> Plan:
    """What a scheduler decides that has not weighed this ask before."""
    ledger._index.pack._families.clear()
    return decided(ledger, one)


def learned(ledger: Ledger, first: int, count: int, sizes: tuple[int, ...]) -> None:
    for number in range(first, first + count):
        ledger.decide(ask(f"seen{number}", sizes[number % len(sizes)]))


def busy(rooms: list[int], model: str = "A", cpu: float = 1e9) -> Ledger:
    """A node `n` whose cards have so much room left."""
    ledger = Ledger()
    ledger.set_node(NodeRecord(N, tuple(card("n", place, model) for place in range(len(rooms)))))
    ledger.set_host(N, cpu)
    for place, room in enumerate(rooms):
        charges = (Charge(CardId(f"n/{place}"), 1, 1000 - room, 0),)
        if room < 1000:
            ledger.set_pod(PodRecord(PodRef("ns", f"old{place}", PodUid(f"old{place}")), N, charges=charges))
    return ledger


def taught(ledger: Ledger, shapes: list[Shape], left: int) -> None:
    """So many pods ask, and `left` of them have come and gone."""
    for number, (mem, cards, cpu, types) in enumerate(shapes):
        if number < left:
            ref = PodRef("ns", f"s{number}", PodUid(f"s{number}"))
            ledger.set_pod(PodRecord(ref, NodeName("elsewhere")))
            ledger.drop_pod(ref.uid)
        ledger.decide(ask(f"{'s' if number >= left else 't'}{number}", mem, cards, cpu, types), [])


def columns_of(*cards: Card) -> Columns:
    ledger = Ledger()
    ledger.set_node(NodeRecord(N, cards))
    return ledger._index.columns


def scale_of(demand: Demand, *cards: Card) -> Scale:
    columns = columns_of(*cards)
    kinds = capacities(columns, len(columns.kinds))
    return Scale(demand, GPU, columns, [finish(residue_of(demand.every(GPU), *kind)) for kind in kinds])


def demand_of(*shapes: tuple[int, int, int, int]) -> Demand:
    """(MiB, cards, milli-CPU, how often asked)"""
    demand = Demand()
    for mem, cards, cpu, count in shapes:
        for number in range(count):
            demand.see(ask(f"{mem}-{cards}-{cpu}-{number}", mem, cards, cpu))
    return demand


def judged(ledger: Ledger) -> Judged:
    return pack_of(ledger)._families[GPU]


def pack_of(ledger: Ledger) -> Pack:
    return ledger._index.pack


def came_and_went(ledger: Ledger, uid: str) -> None:
    ledger.set_pod(PodRecord(ask(uid, 1).pod, NodeName("elsewhere")))
    ledger.drop_pod(PodUid(uid))
