"""The page on explanations names every field of both answers, and what each change is called."""

import re
from pathlib import Path

import pytest
from msgspec import Struct

from hami.cli.look.relief import NodeCards, Report
from hami.ledger.survey import Refused
from hami.plan.explain import CardUse, CardVerdict, Explanation
from hami.plan.fixes import Change, Fix
from hami.plan.fragmentation import Fragmentation, Room, Stuck
from hami.plan.moves import Move
from hami.scheduler.api.answers import Explained, Fragmented

PAGE = Path(__file__).resolve().parent.parent.parent.parent / "docs/reference/explain.md"
QUOTED = re.findall(r"`([^`\n]+)`", PAGE.read_text())
WORDS = {word for quoted in QUOTED for word in re.split(r"[^a-z_]+", quoted)}


@pytest.mark.parametrize(
    "kind",
    [Explained, Refused, Explanation, CardVerdict, CardUse, Fix, Fragmented, Report, Fragmentation, Room, Stuck, Move,
     NodeCards],
)  # fmt: skip
def test_each_field_stands_on_the_page(kind: type[Struct]) -> None:
    assert [field for field in kind.__struct_fields__ if field not in WORDS] == []


def test_each_change_is_told_as_it_is_called() -> None:
    assert [change.value for change in Change if change.value not in QUOTED] == []
