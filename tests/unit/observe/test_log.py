"""Log lines as machines and people read them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from hami import __version__
from hami.observe import log

logger = logging.getLogger("hami.test")


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_json_line_has_its_event_and_fields() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("bound", extra={"took_ms": 3.5, "msg": "mine"} if False else {"took_ms": 3.5, "level": "mine"})
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["msg"]) == ("info", "hami.test", "bound")
    assert (line["took_ms"], line["level_"]) == (3.5, "mine")
    assert line["ts"].endswith("Z")


def test_bound_fields_stand_on_every_line_within_and_on_none_after() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    with log.bound(pod="ns/p"), log.bound(node="n1"):
        logger.info("within")
    logger.info("after")
    within, after = map(json.loads, stream.getvalue().splitlines())
    assert (within["pod"], within["node"]) == ("ns/p", "n1")
    assert "pod" not in after


def test_a_fault_brings_its_trace_on_the_same_line() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed", extra={"odd": object})
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: why" in json.loads(line)["trace"]


def test_a_text_line_quotes_what_would_confuse() -> None:
    stream = io.StringIO()
    log.setup("text", "debug", stream)
    logger.debug("relist", extra={"why": "too old = gone", "path": "/api", "empty": ""})
    line = stream.getvalue()
    assert line.split("hami.test: ")[1] == 'relist why="too old = gone" path=/api empty=""\n'


def test_a_message_cannot_forge_a_second_line() -> None:
    stream = io.StringIO()
    log.setup("text", "info", stream)
    logger.info("read", extra={"name_": "a\nERROR forged"})
    assert len(stream.getvalue().splitlines()) == 1


def test_the_level_holds_and_an_unknown_one_is_refused() -> None:
    stream = io.StringIO()
    log.setup("json", "warning", stream)
    logger.info("quiet")
    assert stream.getvalue() == ""
    with pytest.raises(ValueError, match="LOUD"):
        log.setup("json", "loud", stream)


def test_the_start_line_names_the_build() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    log.started("scheduler", listen=":443")
    line = json.loads(stream.getvalue())
    assert (line["logger"], line["msg"], line["version"], line["listen"]) == (
        "hami.scheduler",
        "started",
        __version__,
        ":443",
    )
