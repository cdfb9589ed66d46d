#!/usr/bin/env python3
"""Regenerate the JSON Schemas of what `hami explain`, `fit`, `frag`, `simulate` and `demo` print with `-o json`, from
their types.

    python tools/schemas.py

A test regenerates them and compares, and holds real answers to them.
"""

import json
from pathlib import Path

import msgspec

from hami.cli.demo.scene import Scene
from hami.cli.look.relief import Report
from hami.scheduler.api.answers import Explained
from hami.sim.traces.replay import Outcome
from hami.sim.traces.report import Replays

FOLDER = Path(__file__).resolve().parent.parent / "docs/reference"
SCHEMAS: dict[str, type[msgspec.Struct]] = {"explained.schema.json": Explained, "fragmentation.schema.json": Report}
"""What stands on the page of explanations too."""
MORE: dict[str, type[msgspec.Struct]] = {
    "simulated.schema.json": Outcome,
    "simulations.schema.json": Replays,
    "scene.schema.json": Scene,
}


def text(kind: type[msgspec.Struct]) -> str:
    """Within a version fields are only added, so readers must pass over those they do not know."""
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    for name, kind in (SCHEMAS | MORE).items():
        (FOLDER / name).write_text(text(kind))
