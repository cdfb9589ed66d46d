"""Draws a scene: a table of cards with bars, a table of pods with what they got or lack."""

from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hami.cli.demo.scene import CardView, PodView, Scene, card_names
from hami.model.ids import CardId
from hami.model.plan import Slice

BAR = 20
SHADES = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""A pod has the same colour on its card and in its row."""


def draw(scene: Scene, width: int = BAR) -> RenderableType:
    colours = {pod.name: SHADES[index % len(SHADES)] for index, pod in enumerate(p for p in scene.pods if p.slices)}
    return Group(cards_table(scene, colours, width), pods_table(scene, colours))


def cards_table(scene: Scene, colours: dict[str, str], width: int) -> Table:
    table = Table(title="Cards", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("node", "card", "model", "memory", "", "cores", "slices", "pods"):
        number = name in ("card", "cores", "slices")
        table.add_column(name, justify="right" if number else "left", no_wrap=name != "pods")
    for _, alike in groupby(scene.cards, key=lambda view: (view.node, view.pods, view.problem, view.card.mem_mib)):
        first, *others = alike
        for views in ([first, *others],) if not first.pods else ([view] for view in (first, *others)):
            table.add_row(*card_row(views, colours, width))
    return table


def card_row(views: list[CardView], colours: dict[str, str], width: int) -> tuple[RenderableType, ...]:
    """One card, or several that are alike and free."""
    view = views[0]
    share = view.mem_mib / view.card.mem_mib if view.card.mem_mib else 0.0
    return (
        view.node,
        str(view.card.index) if len(views) == 1 else f"{view.card.index}-{views[-1].card.index}",
        view.card.model.removeprefix("NVIDIA-").removeprefix("NVIDIA "),
        bar(share, width),
        f"{view.mem_mib} of {view.card.mem_mib} MiB",
        f"{view.core_percent} %",
        f"{view.slots}/{view.card.slots}",
        problem_or_pods(view, colours),
    )


def bar(share: float, width: int) -> Text:
    filled = min(width, round(share * width))
    return Text("█" * filled, style="cyan") + Text("░" * (width - filled), style="dim")


def problem_or_pods(view: CardView, colours: dict[str, str]) -> Text:
    if view.problem:
        return Text(view.problem, style="red")
    return Text(", ").join(Text(name, style=colours.get(name, "")) for name in view.pods)


def pods_table(scene: Scene, colours: dict[str, str]) -> Table:
    table = Table(title="Pods", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pod", "state", "node", "got, or why it waits"):
        table.add_column(name, no_wrap=name != "got, or why it waits")
    names = card_names(scene)
    for pod in scene.pods:
        said = " + ".join(share(one, names) for one in pod.slices) or pod.waits_for or no_slice(pod)
        style = "yellow" if pod.waits_for else ""
        table.add_row(Text(pod.name, style=colours.get(pod.name, "")), state(pod), pod.node, Text(said, style=style))
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
