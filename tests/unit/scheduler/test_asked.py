"""A request in the shortest JSON, as Go writes it, and the same with spaces get the same answer: names stay bytes in
the one case and become strings in the other."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from hami.ledger.sent import Sent
from hami.plan.fleet import refusals
from hami.scheduler.verbs import asked as module
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.verbs import prioritize, shelter
from hami.wire import extender

NAMES = ["gpu-node-01", "gpu-node-02", "gpu-node-03", "gpu-node-04"]


def bodies(pod: object, names: list[str]) -> tuple[bytes, bytes]:
    body = {"Pod": pod, "Nodes": None, "NodeNames": names}
    return json.dumps(body, separators=(",", ":")).encode(), json.dumps(body).encode()


def cluster(stage: Any) -> None:
    stage.node(NAMES[0], mem=1000)
    stage.node(NAMES[1])
    stage.node(NAMES[2])


PODS: dict[str, Callable[[Any], Any]] = {
    "fits": lambda stage: stage.pod("p", gpu=1, gpumem=4000),
    "fits on all": lambda stage: stage.pod("p", gpu=1, gpumem=10),
    "fits nowhere": lambda stage: stage.pod("p", gpu=1, gpumem=400_000),
    "no cards": lambda stage: stage.pod("p"),
}


@pytest.mark.parametrize("few", [0, refusals.FEW])
@pytest.mark.parametrize("wanted", PODS)
@pytest.mark.parametrize("names", [NAMES, NAMES[1:3], ["gpu-node-02", "longer-gpu-node"], ["gpu-node-02"], []])
def test_both_ways_of_writing_a_request_get_the_same_answers(
    stage: Any, monkeypatch: pytest.MonkeyPatch, wanted: str, names: list[str], few: int
) -> None:
    monkeypatch.setattr(refusals, "FEW", few)
    cluster(stage)
    short, spaced = bodies(PODS[wanted](stage), names)
    for verb in (filtering, prioritize, shelter):
        one, other = (json.loads(verb.answer(stage.engine, body)) for body in (short, spaced))
        assert one == other
    found = json.loads(filtering.answer(stage.engine, short))
    answered = [
        *(found["NodeNames"] or []),
        *(found["FailedNodes"] or {}),
        *(found["FailedAndUnresolvableNodes"] or {}),
    ]
    assert sorted(answered) == sorted(names)


def test_a_pod_that_cannot_be_read_is_refused_on_every_node_by_name(stage: Any) -> None:
    cluster(stage)
    short, spaced = bodies(stage.pod("p", gpu="many"), NAMES)
    one, other = (json.loads(filtering.answer(stage.engine, body)) for body in (short, spaced))
    assert one == other
    assert sorted(one["FailedAndUnresolvableNodes"]) == NAMES


def test_names_alike_stay_bytes_and_all_others_are_strings(stage: Any) -> None:
    for body, alike in zip(bodies(stage.pod("p"), NAMES), (True, False), strict=True):
        assert isinstance(module.asked(extender.decode_filter(body)), Sent) == alike
    assert module.asked(extender.decode_filter(bodies(stage.pod("p"), ["a", "bc"])[0])) == ["a", "bc"]


def test_what_is_said_of_names_alike_stays_bytes_and_of_all_others_is_a_mapping() -> None:
    names = Sent.of(json.dumps(NAMES, separators=(",", ":")).encode())
    assert names is not None
    one, other = names.at(np.array([0, 2])), names.at(np.array([1]))
    kept = module.told([('too "small"', one), ("é", other)])
    assert isinstance(kept, msgspec.Raw)
    said = {NAMES[0]: 'too "small"', NAMES[2]: 'too "small"', NAMES[1]: "é"}
    assert msgspec.json.decode(kept) == said
    assert module.told([('too "small"', one), ("é", [NAMES[1]])]) == said
    assert module.told([]) == {}
