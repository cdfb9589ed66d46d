"""What the slices of a node use now, from the metrics of its agent (`docs/reference/broker.md` lists them)."""

import http.client
import math
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hami.model.errors import Malformed, Unavailable

TIMEOUT_S = 5.0
MOST_BYTES = 32 << 20
USED, LIMIT = "hami_vgpu_memory_used_bytes", "hami_vgpu_memory_limit_bytes"
TIME, CORES = "hami_container_device_utilization_ratio", "hami_vgpu_core_limit_ratio"
OURS = "hami_broker_clients "
"""What every agent with a broker tells."""
CHARGED = "hami_vgpu_time_charged"
WAITED, REFUSED = "hami_vgpu_throttled_seconds_total", "hami_vgpu_memory_refused_total"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""An agent is on this node, or behind a forwarded port: no proxy that the environment names knows of either."""
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Slice:
    """One container on one card. `limit_mib` None: the whole card.

    Time is percent of the last second: `time_by` "charge", what launches were charged, or "NVML", what the driver shows
    of a container whose launches are not, as it is alone on the card or has no limit of time. None: nobody knows.
    """

    namespace: str
    pod: str
    container: str
    card: str
    used_mib: float
    limit_mib: float | None
    time_percent: float | None
    time_by: str
    limit_percent: float
    waited_s: float
    refused: float


def asked(url: str) -> str:
    """The agent's metrics. Raises Unavailable, saying how to reach one, and Malformed for what is no such address."""
    if not url.startswith(("http://", "https://")):
        raise Malformed("--agent", url, "an http address, such as http://127.0.0.1:9394")
    page = f"{url.rstrip('/').removesuffix('/metrics')}/metrics"
    try:
        with _DIRECT.open(page, timeout=TIMEOUT_S) as answer:
            text = str(answer.read(MOST_BYTES).decode())
    except (OSError, ValueError, http.client.HTTPException) as fault:
        why = fault.reason if isinstance(fault, urllib.error.URLError) else fault
        raise Unavailable(
            f"no agent answers at {url} ({why}). Run this on a node with `hami agent`, or reach one first: "
            "kubectl -n hami-system port-forward ds/hami-agent 9394"
        ) from fault
    if OURS not in text:
        raise Unavailable(f"what answers at {url} is no hami agent, or one that was started with --no-broker")
    return text


def slices(text: str) -> Iterator[Slice]:
    """By pod, container and card."""
    values: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for name, labels, value in _SAMPLE.findall(text):
        if name in (USED, LIMIT, TIME, CHARGED, CORES, WAITED, REFUSED):
            of = dict(_LABEL.findall(labels))
            key = (of.get("namespace", ""), of.get("pod", ""), of.get("container", ""), of.get("device_uuid", ""))
            values.setdefault(key, {})[name] = _number(name, value)
    for key in sorted(values):
        told = values[key]
        if USED in told:
            limit = told.get(LIMIT)
            yield Slice(
                *key, told[USED] / 2**20, None if limit is None else limit / 2**20, told.get(TIME), _source(told),
                told.get(CORES, 100.0), told.get(WAITED, 0.0), told.get(REFUSED, 0.0),
            )  # fmt: skip


def _number(name: str, value: str) -> float:
    """JSON knows no other than finite ones."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Malformed(name, value, "a number, as an agent tells it")
    return number


def _source(told: dict[str, float]) -> str:
    if TIME not in told:
        return ""
    return "charge" if told.get(CHARGED, 1.0) else "NVML"


def as_json(one: Slice) -> dict[str, Any]:
    return asdict(one)
