"""Explanations and fragmentation, drawn: tables, and a bar a card. Decides nothing."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hami.ledger.survey import Survey
from hami.plan.advice.explain import CardUse, CardVerdict, Explanation
from hami.plan.advice.fixes import Fix
from hami.plan.advice.fragmentation import Fragmentation, Room
from hami.plan.advice.moves import Move
from hami.plan.pack import Worth

WIDTH = 140
"""Columns where nobody looks: a pipe or a file."""
BARS_FROM = 110
"""Narrower screens show a card's memory in numbers only, so that reasons have room."""
BAR = 20
NODES = 50
"""Lines of a cluster's picture."""
NUMBERS = ("nodes", "effort", "seen", "fit now", "after", "at best", "free, of no use")
SEATS = 5
"""Lines of seats shown of a node."""
Told = tuple[tuple[RenderableType, ...], list[Text]]
"""What is shown of a card beside its index, and what is said of it."""
UNITS = {"CardInsufficientMemory": "MiB", "CardInsufficientCore": "%", "CardTimeSlicingExhausted": "slices"}


def console(json: bool = False) -> Console:
    import sys

    width = None if sys.stdout.isatty() else WIDTH
    return Console(stderr=json, width=width, markup=False, emoji=False)  # what is shown are other people's names


def explained(survey: Survey, detail: bool, width: int = WIDTH) -> RenderableType:
    """The answer, the reasons, what would help, and the cards of the nodes that were looked at, in so many columns."""
    parts: list[RenderableType] = [_verdict(survey), Text()]
    if survey.refused:
        parts.append(_reasons(survey))
    if survey.fixes:
        parts.append(_fixes(survey.fixes))
    elif not survey.fits and detail:
        parts.append(Text("No single change of the ask, of a card or of one pod makes it fit.", style="yellow"))
    parts += [_node(node, width) for node in survey.nodes]
    if not detail:
        parts.append(Text("Nodes and cards are shown to those who may `get nodes`.", style="dim"))
    return Group(*parts)


def _verdict(survey: Survey) -> Text:
    asks = "; ".join(survey.asks)
    if survey.bound is not None:
        return Text(f"{survey.pod} is bound to {survey.bound} ({asks})", style="green")
    if survey.fits:
        where = f", best on {survey.plan.node}" if survey.plan else ""
        return Text(f"fits on {survey.feasible} of {survey.offered} nodes{where} ({asks})", style="bold green")
    return Text(f"does not fit: 0 of {survey.offered} nodes ({asks})", style="bold red")


def _reasons(survey: Survey) -> RenderableType:
    table = _table(("nodes", "reason", "which"))
    for one in survey.refused:
        more = f" and {one.nodes - len(one.names)} more" if one.names and one.nodes > len(one.names) else ""
        table.add_row(str(one.nodes), one.text, ", ".join(one.names) + more)
    return _titled("Where it does not, and why" if survey.fits else "Why not", table)


def _fixes(fixes: Sequence[Fix]) -> RenderableType:
    table = _table(("change", "then it fits on", "effort"))
    for number, fix in enumerate(fixes):
        table.add_row(Text(fix.text, style="bold" if number == 0 else ""), fix.node or "", f"{fix.effort:.2f}")
    return _titled("What would make it fit, the nearest first", table)


def _node(node: Explanation, width: int) -> RenderableType:
    """Cards, a row each; what is said of them beside them, or on a narrow screen below."""
    mark = "fits" if node.plan else node.refusal or "does not fit"
    wide = width >= BARS_FROM
    long = 0 if not wide else BAR if width >= WIDTH else BAR // 2  # the verdict needs the room more
    heads = ("card", "model", *(("memory",) if wide else ()), "MiB free", "cores free", "slices")
    table, below = _table((*heads, "verdict") if wide else heads), list[RenderableType]()
    taken = {one.card for slices in node.plan.containers for one in slices} if node.plan else set()
    alone = len({one.container for one in node.cards}) == 1
    rows: list[tuple[int, Told]] = []
    for use in node.use:
        verdicts = [one for one in node.cards if one.card == use.card]
        said = [_said(one, use.card in taken, "" if alone else f"{one.container}: ") for one in verdicts]
        rows.append((use.index, (_card(use, long), said)))
    for which, (cells, said) in _alike(rows):
        table.add_row(which, *cells, *([Group(*said)] if wide else []))
        below += [] if wide else [Text(f" {which}: ") + one for one in said]
    if node.pack is not None:
        below.append(Text(_packed(node.pack), style="italic"))
    return Group(_titled(f"{node.node}: {mark}; score {node.score:.2f} = {node.formula}", table), *below, Text())


def _alike(rows: Iterable[tuple[int, Told]]) -> Iterator[tuple[str, Told]]:
    """Cards in a row of which the same is said, as one: ``0-7``."""
    for what, cards in groupby(rows, key=lambda row: row[1]):
        first, *others = [index for index, _ in cards]
        yield f"{first}-{others[-1]}" if others else str(first), what


def _packed(worth: Worth) -> str:
    """What `pack` compared, the dearest seats first; thousandths of a card."""
    lines = [f"pack: score {worth.score:.1f} = {worth.formula} (nearest to 0 is chosen)"]
    lines += [
        f"  {seat.change:+9.1f}  seats for {seat.shape}: {seat.before:g} -> {seat.after:g}, each {seat.weight:.1f}"
        for seat in worth.seats[:SEATS]
    ]
    lines += [
        f"  card {price.place}: {price.free / 10:g} % free worth {price.worth:.0f}"
        f" -> {price.free_after / 10:g} % worth {price.worth_after:.0f}"
        for price in worth.prices
        if price.free != price.free_after
    ]
    return "\n".join(lines)


def _card(use: CardUse, long: int) -> tuple[RenderableType, ...]:
    """Cells but the first; the bar is so many columns long, or left out."""
    return (
        use.model.removeprefix("NVIDIA-").removeprefix("NVIDIA "),
        *((bar(use.used_mem_mib, use.mem_mib, long),) if long else ()),
        f"{use.mem_mib - use.used_mem_mib} of {use.mem_mib}",
        f"{use.core_percent - use.used_core_percent} %",
        f"{use.used_slots}/{use.slots}",
    )


def _said(verdict: CardVerdict, chosen: bool, whose: str) -> Text:
    """`whose` names the container, where there are several."""
    if verdict.score is not None:
        text = f"{whose}score {verdict.score:.2f} = {verdict.formula}"
        return Text(("→ " if chosen else "") + text, style="bold green" if chosen else "green")
    reason = verdict.reason.value if verdict.reason else ""
    amounts = ""
    if verdict.needed is not None and verdict.had is not None:
        unit = UNITS.get(reason, "")
        amounts = f": needs {verdict.needed} {unit}, has {verdict.had}"
    return Text(f"{whose}{reason}{amounts}", style="red")


def bar(used: int, total: int, width: int = BAR) -> Text:
    filled = min(width, round(used / total * width)) if total else 0
    return Text("█" * filled, style="cyan") + Text("░" * (width - filled), style="dim")


def cards(nodes: Sequence[tuple[str, Sequence[CardUse]]]) -> RenderableType:
    """Every card as a small bar, a node a row."""
    table = _table(("node", "cards", "free"))
    for name, uses in nodes[:NODES]:
        bars = Text(" ").join(bar(use.used_mem_mib, use.mem_mib, 8) for use in uses)
        free = sum(max(0, use.mem_mib - use.used_mem_mib) for use in uses)
        cores = sum(max(0, use.core_percent - use.used_core_percent) for use in uses)
        table.add_row(name, bars, f"{free} MiB, {cores} %")
    if len(nodes) > NODES:
        table.caption, table.caption_justify = f"and {len(nodes) - NODES} nodes more: -o json has all", "left"
    return _titled("Cards (█ used, ░ free)", table)


def heading(before: Fragmentation, after: Fragmentation | None = None) -> Text:
    """The number, and what it is a number of."""
    head = Text(f"Fragmentation {before.percent:.1f} %", style="bold")
    if after is not None:
        head.append(f", {after.percent:.1f} % after the moves")
    return head.append(": so much of what is free is of no use to what is asked here", style="not bold")


def fragmented(before: Fragmentation, after: Fragmentation | None = None) -> Group:
    """How many of each typical ask still fit, with what the moves would make of it; and what blocks."""
    table = _table(("typical ask", "seen", "fit now", *(("after",) if after else ()), "at best", "free, of no use"))
    later = {room.name: room.fits for room in after.rooms} if after else {}
    for room in before.rooms:
        counts = [str(room.fits), *([str(later.get(room.name, ""))] if after else [])]
        table.add_row(room.name, str(room.seen or ""), *counts, str(room.at_best), f"{room.unusable_percent:.0f} %")
    blocked = [room for room in before.rooms if room.stuck]
    parts = [_blocking(blocked)] if blocked else []
    return Group(table, *parts, *_partly(before))


def _blocking(rooms: Sequence[Room]) -> RenderableType:
    """Cards with something free that is of no use to an ask, and why."""
    table = _table(("typical ask", "cards", "reason", "free there"))
    for room in rooms:
        for number, one in enumerate(room.stuck[:2]):
            free = f"{one.free_mem_mib} MiB, {one.free_core_percent} %"
            table.add_row("" if number else room.name, str(one.cards), one.reason.value, free)
    return _titled("What blocks", table)


def _partly(measured: Fragmentation) -> list[Text]:
    """Where not all was looked at, for which asks, and how much was."""
    partly = [room for room in measured.rooms if room.searched < room.nodes]
    return [Text(f"{one.name}: searched {one.searched} of {one.nodes} nodes", style="yellow") for one in partly]


def moves(target: str, made: Sequence[Move], node: str) -> RenderableType:
    table = _table(("pod", "from", "to", "cards"))
    for move in made:
        slices = ", ".join(one.card for container in move.plan.containers for one in container)
        table.add_row(str(move.pod), move.source, move.plan.node, slices)
    return _titled(f"Moves that would make room for {target} on {node} (nothing is moved)", table)


def _titled(title: str, table: Table) -> RenderableType:
    """Above the table and as wide as the screen: a table's own title is only as wide as the table."""
    return Group(Text(title, style="italic"), table)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    return table
