"""Numbers a person types: in a range, and numbers at all. `nan` is in every range, since no comparison holds of it."""

from math import isfinite
from typing import Any

import click


class Number(click.FloatRange):
    """A finite number in a range; seconds, parts and factors."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail(f"{value} is no number one can count with.", param, ctx)
        return found
