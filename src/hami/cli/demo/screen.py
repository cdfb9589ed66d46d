"""Draws a scene: a table of cards with bars, a table of pods with what they got or lack."""

from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hami.cli.demo.scene import CardView, PodView, Scene, card_names
from hami.model.ids import CardId
from hami.model.plan import Slice

WIDTH = 140
"""Columns where nobody looks: a pipe or a file."""
BAR = 20
CARD_HEADS = {"node": 0, "card": 0, "model": 64, "memory": 110, "MiB": 0, "cores": 64, "slices": 90, "pods": 50}
"""What is told of a card, and from how many columns on."""
NODES_FROM = 64
"""Narrower screens leave out a pod's node, which stands in what it got."""
SHADES = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""A pod has the same colour on its card and in its row."""


def draw(scene: Scene, width: int = WIDTH) -> RenderableType:
    """Both tables in so many columns: what would be cut on a narrow screen is left out."""
    colours = {pod.name: SHADES[index % len(SHADES)] for index, pod in enumerate(p for p in scene.pods if p.slices)}
    return Group(cards_table(scene, colours, width), pods_table(scene, colours, width))


def cards_table(scene: Scene, colours: dict[str, str], width: int) -> Table:
    table = Table(title="Cards", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    heads = [head for head, least in CARD_HEADS.items() if width >= least]
    for head in heads:
        words = head in ("model", "pods")
        number = head in ("card", "cores", "slices")
        table.add_column(head, justify="right" if number else "left", no_wrap=not words, overflow="fold")
    for _, alike in groupby(scene.cards, key=lambda view: (view.node, view.pods, view.problem, view.card.mem_mib)):
        first, *others = alike
        for views in ([first, *others],) if not first.pods else ([view] for view in (first, *others)):
            cells = card_row(views, colours)
            table.add_row(*(cells[head] for head in heads))
    return table


def card_row(views: list[CardView], colours: dict[str, str]) -> dict[str, RenderableType]:
    """One card, or several that are alike and free; a cell for each head."""
    view = views[0]
    share = view.mem_mib / view.card.mem_mib if view.card.mem_mib else 0.0
    return {
        "node": view.node,
        "card": str(view.card.index) if len(views) == 1 else f"{view.card.index}-{views[-1].card.index}",
        "model": view.card.model.removeprefix("NVIDIA-").removeprefix("NVIDIA "),
        "memory": bar(share, BAR),
        "MiB": f"{view.mem_mib} of {view.card.mem_mib}",
        "cores": f"{view.core_percent} %",
        "slices": f"{view.slots}/{view.card.slots}",
        "pods": problem_or_pods(view, colours),
    }


def bar(share: float, width: int) -> Text:
    filled = min(width, round(share * width))
    return Text("█" * filled, style="cyan") + Text("░" * (width - filled), style="dim")


def problem_or_pods(view: CardView, colours: dict[str, str]) -> Text:
    if view.problem:
        return Text(view.problem, style="red")
    return Text(", ").join(Text(name, style=colours.get(name, "")) for name in view.pods)


def pods_table(scene: Scene, colours: dict[str, str], width: int) -> Table:
    table = Table(title="Pods", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    wide = width >= NODES_FROM
    for head in ("pod", "state", *(("node",) if wide else ()), "got, or why it waits"):
        table.add_column(head, no_wrap=wide and not head.startswith("got"), overflow="fold")
    names = card_names(scene)
    for pod in scene.pods:
        said = " + ".join(share(one, names) for one in pod.slices) or pod.waits_for or no_slice(pod)
        style = "yellow" if pod.waits_for else ""
        cells = [Text(pod.name, style=colours.get(pod.name, "")), state(pod), *([Text(pod.node)] if wide else [])]
        table.add_row(*cells, Text(said, style=style))
    return table


def share(one: Slice, names: dict[CardId, str]) -> str:
    cores = f", {one.core_percent} % of its time" if one.core_percent else ""
    return f"{one.mem_mib} MiB of card {names.get(one.card, one.card)}{cores}"


def no_slice(pod: PodView) -> str:
    return "asks for no card" if pod.node else ""


def state(pod: PodView) -> Text:
    if pod.waits_for:
        return Text("waits", style="yellow")
    if pod.phase == "Running" and pod.granted:
        return Text("Running", style="green")
    return Text(pod.phase)
