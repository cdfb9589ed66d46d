#!/usr/bin/env python3
"""Regenerate the JSON Schemas of what `hami explain`, `fit` and `frag` print with `-o json`, from their types.

    python tools/schemas.py

A test regenerates them and compares, and holds real answers to them.
"""

import json
from pathlib import Path

import msgspec

from hami.cli.look.relief import Report
from hami.scheduler.api.answers import Explained

FOLDER = Path(__file__).resolve().parent.parent / "docs/reference"
SCHEMAS = {"explained.schema.json": Explained, "fragmentation.schema.json": Report}


def text(kind: type[msgspec.Struct]) -> str:
    """Within a version fields are only added, so readers must pass over those they do not know."""
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    for name, kind in SCHEMAS.items():
        (FOLDER / name).write_text(text(kind))
