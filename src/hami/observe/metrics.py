"""The program's own metrics, and the page they are read from.

Counters and histograms of the process are prometheus_client's; families with a
line a card are `observe.exposition`'s, which costs a thirtieth of that.
"""

from collections.abc import Iterable

import msgspec
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from hami.observe.build import build
from hami.observe.exposition import Sheet

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Histogram bounds, seconds, for a filter: from a tenth of a millisecond to kube-scheduler's patience."""


def registry() -> CollectorRegistry:
    """A fresh registry with ``hami_build_info`` and the process's CPU, memory, files and garbage collections."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series beside each counter doubles the page and nobody graphs it
    made = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    Info("hami_build", "Which build of HAMi runs here.", registry=made).info(msgspec.structs.asdict(build()))
    return made


def page(registry: CollectorRegistry, sheets: Iterable[Sheet] = ()) -> bytes:
    """The whole text page; serve it as `CONTENT_TYPE`."""
    return b"".join([generate_latest(registry), *(sheet.render() for sheet in sheets)])
