"""Fixtures that several folders share: real clusters, and the logs of those that a test failed on.

The lab is imported where it is used: unit tests, which come by here too, need none of it.
"""

import asyncio
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from hami.lab import Lab

LOGS = Path(__file__).resolve().parent.parent / "logs"
CLUSTERS = {"lab", "lab_node", "new_lab"}
PARTS = {"contract": "clusters", "flow": "clusters", "lab": "clusters", "node": "clusters", "native": "measuring"}
ORDER = ("clusters", "", "measuring")


def pytest_configure() -> None:
    # Python up to 3.13 makes an event loop where none was ever set; pytest-asyncio asks for one and closes none.
    asyncio.set_event_loop(None)
    # Where this runs in the background of a script Ctrl-C is ignored, and would be by every program that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A deadline, and how long drawing examples took, measure the machine's other work; speed has its benchmarks.
    settings.register_profile("hami", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("hami")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses a cluster is marked so: `-m "not lab"` leaves it out.

    Dozens of processes on two cores that others use too: what waits for real time gets a second
    chance, and the last lines of a run say which did. Nothing else does.
    """
    items.sort(key=lambda item: ORDER.index(_part(item.nodeid)))
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & CLUSTERS:
            item.add_marker(pytest.mark.lab)
        if "lab_node" in names:
            item.add_marker(pytest.mark.node)
        if any(item.iter_markers("lab")) or any(item.iter_markers("node")) or any(item.iter_markers("realtime")):
            item.add_marker(pytest.mark.flaky(reruns=2 if any(item.iter_markers("realtime")) else 1))


def _part(nodeid: str) -> str:
    return PARTS.get(nodeid.removeprefix("tests/").partition("/")[0], "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two workers (`make test`) share a run so: one has all clusters, which mostly wait; the other the rest, file by
    file, and at its end what measures time, by then beside little else. Never two start clusters, never two measure.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPart(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _part(nodeid) or nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # in the order of pytest_collection_modifyitems, not the largest first
    return ByPart(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Keep the logs of every cluster that a failed test had."""
    report = yield
    if report.failed:
        for lab in _labs(item):
            folder = LOGS / re.sub(r"[^\w.-]+", "-", f"{item.nodeid}-{lab.id}")
            shutil.rmtree(folder, ignore_errors=True)
            if lab.logs.is_dir():
                report.sections.append(("logs of the lab", str(lab.keep_logs(folder))))
    return report


def _labs(item: pytest.Item) -> "list[Lab]":
    arguments = getattr(item, "funcargs", {})
    used = [arguments[name] for name in ("lab", "lab_node") if name in arguments]
    return [*used, *(arguments["new_lab"].labs if "new_lab" in arguments else ())]


def _require(*, nodes: bool) -> None:
    """A build takes minutes and belongs before the tests, where its progress is seen."""
    from hami.lab import binaries, versions

    modules = versions.MODULES if nodes else versions.CONTROL_PLANE
    missing = binaries.find(modules).missing(modules)
    if missing:
        names = ", ".join(module.name for module in missing)
        pytest.fail(f"the lab's {names} is not built: run `python -m hami.lab build` (`make test` does)")


@pytest.fixture(scope="session")
def lab() -> "Iterator[Lab]":
    """A cluster without nodes, for the whole session: leave it as you found it, or take `new_lab`."""
    from hami.lab import Lab

    _require(nodes=False)
    with Lab() as running:
        yield running


@pytest.fixture(scope="session")
def lab_node() -> "Iterator[Lab]":
    """A cluster with one real kubelet, `lab_node.nodes["node-1"]`, for the whole session. Skips without root."""
    from hami.lab import Lab, obstacle

    reason = obstacle()
    if reason:
        pytest.skip(reason)
    _require(nodes=True)
    with Lab(nodes=1) as running:
        yield running


class Labs:
    """Makes clusters for one test; they end with it."""

    def __init__(self) -> None:
        self.labs: list[Lab] = []

    def __call__(self, **arguments: Any) -> "Lab":
        """`Lab(...)`, started."""
        from hami.lab import Lab

        _require(nodes=bool(arguments.get("nodes")))
        lab = Lab(**arguments)
        self.labs.append(lab)
        lab.start()
        return lab


@pytest.fixture
def new_lab() -> Iterator[Labs]:
    """A cluster of the test's own: `new_lab(scheduler=False, apiserver_flags={...})`."""
    labs = Labs()
    yield labs
    for lab in labs.labs:
        lab.stop()
