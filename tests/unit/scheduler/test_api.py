"""The questions people ask: who is let in, what is told to whom, how often, and that /filter does not wait."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from msgspec.structs import replace
from tests.unit.plan.builders import app, card, pod, want

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.ledger.survey import survey
from hami.model.errors import Bug
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.plan.advice.fixes import Change
from hami.plan.steps import finish
from hami.scheduler.api import desk as desks
from hami.scheduler.api.access import Access, Denied, User, audiences, certified, token_in
from hami.scheduler.api.advise import Adviser, advice
from hami.scheduler.api.answers import OTHERWISE, discreet, own, whole
from hami.scheduler.api.desk import Desk
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.loop.unhurried import unhurried


class FakeKube:
    """Knows tokens and rights, and counts what it was asked."""

    def __init__(
        self, tokens: dict[str, str], rights: set[tuple[str, str, str]], pods: Mapping[str, bytes] = {}
    ) -> None:
        self.tokens, self.rights, self.pods = tokens, rights, pods
        self.asked: list[dict[str, Any]] = []

    async def create(self, path: str, body: Any, type: Any) -> Any:  # noqa: A002
        import msgspec

        self.asked.append(body["spec"])
        if path.endswith("tokenreviews"):
            name = self.tokens.get(body["spec"]["token"])
            status: Any = {"authenticated": name is not None, "user": {"username": name or "", "groups": ["g"]}}
        else:
            spec = body["spec"]
            one = spec["resourceAttributes"]
            status = {"allowed": (spec["user"], one["verb"], one["resource"]) in self.rights}
        return msgspec.convert({"status": status}, type)

    async def get(self, path: str, type: Any) -> Any:  # noqa: A002
        import msgspec

        from hami.kube.errors import NotFound

        if path not in self.pods:
            raise NotFound(404, "NotFound", path)
        return msgspec.json.decode(self.pods[path], type=type)


def cluster() -> Ledger:
    ledger = Ledger()
    for name, own_card, taken in (("n1", "d1", 3000), ("n2", "d2", 7000)):
        node = NodeName(name)
        ledger.set_node(NodeRecord(node, (card(own_card),)))
        placed = ledger.fit(pod(app(want(taken, cores=30)), uid=f"on-{name}"), node)
        assert isinstance(placed, Plan)
        ledger.set_pod(PodRecord(placed.pod, node, placed.containers, placed.charges))
    return ledger


WAITING = {
    "metadata": {"namespace": "team", "name": "w", "uid": "w"},
    "spec": {
        "containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "6000"}}}]
    },
}
PODS = {"/api/v1/namespaces/team/pods/w": json.dumps(WAITING).encode()}
EVERYTHING = {("boss", "get", "pods"), ("boss", "get", "nodes"), ("boss", "create", "pods")}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made(stage: Any, rights: set[tuple[str, str, str]] = EVERYTHING) -> tuple[Desk, FakeKube, Clock]:
    kube, clock = FakeKube({"t-boss": "boss", "t-dev": "dev"}, rights, PODS), Clock()
    access = Access(kube, clock)  # type: ignore[arg-type]
    return Desk(stage.engine, kube, access, clock=clock), kube, clock  # type: ignore[arg-type]


async def ask(desk: Desk, method: str, path: str, token: str | None = "t-boss", body: object = None) -> tuple[int, Any]:
    headers = {"X-Hami-Token": token} if token else {}
    request = make_mocked_request(method, path, headers=headers)
    encoded = json.dumps(body).encode() if body is not None else b""

    async def read() -> bytes:
        return encoded

    request.read = read  # type: ignore[method-assign]
    answer = await desk.calls[path.partition("?")[0]](request)
    assert isinstance(answer, web.Response)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


EXPLAIN = "/api/v1/explain?namespace=team&name=w"


@pytest.fixture
def stage(stage: Any) -> Any:
    """The scheduler's own test stage, with two nodes."""
    for one in list(stage.engine.ledger.nodes()):
        stage.engine.ledger.drop_node(one.name)
    full = cluster()
    for one in full.nodes():
        stage.engine.ledger.set_node(NodeRecord(one.name, tuple(state.card for state in one.cards)))
    for record in full.pods().values():
        stage.engine.ledger.set_pod(record)
    return stage


async def test_a_person_with_all_rights_sees_nodes_cards_and_the_nearest_fix(stage: Any) -> None:
    desk, _, _ = made(stage)
    status, answer = await ask(desk, "GET", EXPLAIN)
    assert (status, answer["fits"], answer["detail"], answer["kind"]) == (200, False, True, "hami.io/explained")
    assert answer["fixes"][0]["text"] == "ask at most 5000 MiB a card"
    assert answer["fixes"][0]["node"] == "n1"
    assert {node["node"] for node in answer["nodes"]} == {"n1", "n2"}


@pytest.mark.parametrize(
    ("uid", "types", "said"),
    [
        ("on-n1", "A10", "move pod ns/pod-on-n1 to n3"),
        ("on-n1", "A100", "end pod ns/pod-on-n1: no other node has room for it"),
        ("another", "A100", "move pod ns/pod-on-n1 to n3"),
    ],
)
async def test_a_pod_is_to_be_moved_only_where_it_would_accept_a_card(
    stage: Any, uid: str, types: str, said: str
) -> None:
    """The ledger has what pods hold; what they ask stands in the pod itself, if it is still the same one."""
    stage.engine.ledger.set_node(NodeRecord(NodeName("n3"), (card("d3", model="NVIDIA-A10", mem_mib=4000),)))
    desk, kube, _ = made(stage)
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000", "nvidia.com/gpucores": "30"}
    meta = {"namespace": "ns", "name": "pod-on-n1", "uid": uid, "annotations": {"nvidia.com/use-gputype": types}}
    spec = {"containers": [{"name": "main", "resources": {"limits": limits}}]}
    kube.pods = {
        **PODS, "/api/v1/namespaces/ns/pods/pod-on-n1": json.dumps({"metadata": meta, "spec": spec}).encode()
    }  # fmt: skip
    _, answer = await ask(desk, "GET", EXPLAIN)
    assert said in [fix["text"] for fix in answer["fixes"]]


async def test_a_pod_whose_cards_are_there_is_told_what_it_waits_for(stage: Any) -> None:
    desk, kube, _ = made(stage)
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "100"}
    spec = {"containers": [{"name": "main", "resources": {"limits": limits}}]}
    group = {"labels": {"scheduling.x-k8s.io/pod-group": "g"}, "annotations": {"scheduling.x-k8s.io/min-member": "2"}}
    alone = {"metadata": {"namespace": "team", "name": "alone", "uid": "alone"}, "spec": spec}
    member = {"metadata": {"namespace": "team", "name": "member", "uid": "member", **group}, "spec": spec}
    kube.pods = {f"/api/v1/namespaces/team/pods/{one['metadata']['name']}": json.dumps(one).encode()
                 for one in (alone, member)}  # fmt: skip

    async def notes(name: str) -> list[str]:
        _, answer = await ask(desk, "GET", f"/api/v1/explain?namespace=team&name={name}")
        assert answer["fits"] is True
        return list(answer.get("notes", []))

    assert stage.filter(member, "n1", "n2")["NodeNames"] == []
    assert await notes("member") == ["GangIncomplete: gang g: 1 of 2 fit, 1 have been created"]
    assert await notes("alone") == [OTHERWISE]
    assert stage.filter(alone, "n1", "n2")["NodeNames"] != []
    assert await notes("alone") == [], "its slice is held: it is on its way"


async def test_a_person_without_sight_of_nodes_gets_reasons_and_what_he_can_do_himself(stage: Any) -> None:
    desk, _, _ = made(stage, {("dev", "get", "pods")})
    status, answer = await ask(desk, "GET", EXPLAIN, "t-dev")
    assert (status, answer["detail"], answer["fits"]) == (200, False, False)
    assert "missing 1000 MiB" in answer["refused"][0]["text"]
    assert [fix["text"] for fix in answer["fixes"]] == ["ask at most 5000 MiB a card"]
    assert not {"n1", "n2", "d1", "d2", "on-n1"} & set(json.dumps(answer).replace('"', " ").split())


async def test_strangers_and_people_without_the_right_are_refused(stage: Any) -> None:
    desk, _, _ = made(stage, set())
    assert (await ask(desk, "GET", EXPLAIN, None))[0] == 401
    assert (await ask(desk, "GET", EXPLAIN, "forged"))[0] == 401
    status, answer = await ask(desk, "GET", EXPLAIN, "t-dev")
    assert (status, answer["message"]) == (403, 'user "dev" cannot get pods "w" in the namespace "team"')
    assert (await ask(desk, "GET", "/api/v1/frag", "t-dev"))[0] == 403
    assert (await ask(desk, "POST", "/api/v1/fit", "t-dev", {"limits": {"gpu": 1}}))[0] == 403


async def test_who_may_make_pods_may_ask_whether_one_would_fit(stage: Any) -> None:
    desk, _, _ = made(stage, {("dev", "create", "pods")})
    status, answer = await ask(desk, "POST", "/api/v1/fit", "t-dev", {"limits": {"gpu": 1, "gpumem": 4000}})
    assert (status, answer["fits"], answer["detail"], "plan" in answer) == (200, True, False, False)


async def test_what_cannot_be_meant_is_refused_with_path_and_way_out(stage: Any) -> None:
    desk, _, _ = made(stage)
    for body, part in (
        ({"limits": {"gpumen": 4}}, "gpumen"),
        ({"limits": {"gpu": 1, "gpucores": 101}}, "101"),
        ({"limits": {"gpu": 0}}, "at least one of"),
        ({"limits": 3}, "$.limits"),
    ):
        status, answer = await ask(desk, "POST", "/api/v1/fit", body=body)
        assert (status, part in answer["message"]) == (400, True), answer
    assert (await ask(desk, "GET", "/api/v1/explain?namespace=team"))[0] == 400
    assert (await ask(desk, "GET", EXPLAIN + "&nodes=0"))[0] == 400
    assert (await ask(desk, "GET", "/api/v1/explain?namespace=team&name=gone"))[0] == 404
    assert (await ask(desk, "POST", EXPLAIN))[0] == 405


async def test_answers_change_nothing(stage: Any) -> None:
    desk, _, _ = made(stage)
    before = list(stage.engine.ledger.nodes())
    await ask(desk, "GET", EXPLAIN)
    await ask(desk, "POST", "/api/v1/fit", body={"limits": {"gpu": 1, "gpumem": 10}})
    await ask(desk, "GET", "/api/v1/frag")
    assert list(stage.engine.ledger.nodes()) == before
    assert not list(stage.engine.ledger.reservations())


async def test_fragmentation_is_told_to_who_may_see_nodes(stage: Any) -> None:
    desk, _, _ = made(stage)
    status, answer = await ask(desk, "GET", "/api/v1/frag")
    rooms = {room["name"]: room["fits"] for room in answer["fragmentation"]["rooms"]}
    assert (status, answer["nodes"], answer["cards"]) == (200, 2, 2)
    assert rooms["a whole card"] == 0
    assert rooms["1 x 3000 MiB, 30 %"] == 1


async def test_one_person_cannot_take_the_others_questions(stage: Any) -> None:
    desk, _, clock = made(stage, {("dev", "get", "pods"), ("boss", "get", "pods")})
    answers = [await ask(desk, "GET", EXPLAIN, "t-dev") for _ in range(int(desks.BURST_EACH) + 1)]
    assert [status for status, _ in answers] == [200] * int(desks.BURST_EACH) + [429]
    assert (await ask(desk, "GET", EXPLAIN, "t-boss"))[0] == 200
    clock.now += 1.0
    assert (await ask(desk, "GET", EXPLAIN, "t-dev"))[0] == 200


async def test_reviews_are_kept_for_a_moment_and_asked_again_after_it(stage: Any) -> None:
    desk, kube, clock = made(stage)
    await ask(desk, "GET", EXPLAIN)
    asked = len(kube.asked)
    await ask(desk, "GET", EXPLAIN)
    assert len(kube.asked) == asked
    kube.tokens.clear()
    clock.now += 31.0
    assert (await ask(desk, "GET", EXPLAIN))[0] == 401


async def test_a_replica_that_does_not_decide_does_not_tell(stage: Any) -> None:
    desk, _, _ = made(stage)
    stage.engine.gate.rebuild()
    status, answer = await ask(desk, "GET", EXPLAIN)
    assert (status, "rebuilt" in answer["message"]) == (503, True)


async def test_work_is_done_in_slices_with_pauses_thrice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(desks.asyncio, "sleep", sleep)
    times = iter([0.0, 0.0004, 0.0011, 0.01, 0.0105])

    def work() -> Any:
        yield
        yield
        yield
        return "done"

    assert await unhurried(work(), lambda: next(times)) == "done"
    assert slept == [pytest.approx(0.0033)]


def test_pods_of_other_namespaces_are_not_named() -> None:
    ledger = cluster()
    answer = whole(finish(survey(ledger, pod(app(want(8000))))))
    assert any("pod-on-n1" in fix.text for fix in answer.fixes)
    hidden = discreet(answer, frozenset())
    assert "pod-on-n1" not in repr(hidden.fixes) + repr([node.fixes for node in hidden.nodes])
    assert discreet(answer, frozenset({"ns"})) == answer


def test_what_is_told_without_sight_of_nodes_names_none_of_them() -> None:
    ledger = cluster()
    ledger.set_node(NodeRecord(NodeName("n3"), (card("d3"),), problem="pod secret/x: its record cannot be read"))
    told = own(finish(survey(ledger, pod(app(want(8000))))))
    assert "secret" not in repr(told)
    assert all(name not in repr(replace(told, pod=told.pod)) for name in ("n1", "n3", "d1", "on-n"))
    assert Change.UNCORDON not in {fix.change for fix in told.fixes}


def test_tokens_come_in_either_header_and_certificates_name_users() -> None:
    assert token_in({"Authorization": "Bearer abc"}) == "abc"
    assert token_in({"X-Hami-Token": "def", "Authorization": "Bearer abc"}) == "def"
    assert token_in({"Authorization": "Basic abc"}) is None
    assert token_in({"X-Hami-Token": "x" * 20_000}) is None
    subject = ((("organizationName", "devs"),), (("commonName", "ann"),))
    assert certified({"subject": subject}) == User("ann", groups=("devs", "system:authenticated"))
    assert certified({}) is None


def test_only_a_token_made_for_us_is_reviewed_as_ours() -> None:
    def jwt(claims: object) -> str:
        return "h." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".s"

    assert audiences(jwt({"aud": ["hami"]})) == ("hami",)
    assert audiences(jwt({"aud": "x"})) == ("x",)
    assert audiences(jwt([1])) == audiences("opaque") == audiences("a.!!.c") == ()


async def test_the_error_of_a_forged_token_is_kept_too(stage: Any) -> None:
    _, kube, clock = made(stage)
    access = Access(kube, clock)  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(Denied):
            await access.user({"X-Hami-Token": "forged"})
    assert len(kube.asked) == 1


async def test_a_pod_that_waits_is_advised_once_for_each_refusal(stage: Any) -> None:
    told: list[tuple[str, str]] = []

    class Recorder:
        def record(self, regarding: Any, kind: str, reason: str, message: str) -> None:
            if reason == "WouldFit":
                told.append((regarding.name, message))

    engine = stage.engine
    object.__setattr__(engine, "narrator", Narrator(Recorder()))
    adviser, big = Adviser(engine), pod(app(want(6000)), uid="big")
    engine.decide(big, None)
    await adviser.round()
    engine.decide(big, None)
    await adviser.round()
    assert told == [("pod-big", "the nearest change that makes it fit: ask at most 5000 MiB a card (on n1)")]
    engine.ledger.set_node(NodeRecord(NodeName("n3"), (card("d3", mem_mib=5500),)))
    engine.decide(big, None)
    await adviser.round()
    assert told[1:] == [("pod-big", "the nearest change that makes it fit: ask at most 5500 MiB a card (on n3)")]


async def test_a_fault_over_one_pod_keeps_no_other_from_its_advice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: Any
) -> None:
    def faulty(ledger: Ledger, ask: Any, **more: Any) -> Any:
        if ask.pod.uid == "odd":
            raise Bug("no container lacks cards, and yet there is no plan")
        return survey(ledger, ask, **more)

    monkeypatch.setattr("hami.scheduler.api.advise.survey", faulty)
    engine = stage.engine
    stage.node("a", mem=1000)
    told: list[str] = []
    monkeypatch.setattr(engine.narrator, "advised", lambda ref, _: told.append(ref.uid))
    for uid in ("odd", "big"):
        engine.decide(pod(app(want(6000)), uid=uid), None)
    await Adviser(engine).round()
    assert told == ["big"]
    assert "gets no advice" in caplog.text


async def test_advice_names_no_other_pod(stage: Any) -> None:
    found = finish(survey(cluster(), pod(app(want(8000, percent=100)))))
    only_moves = replace(found, fixes=tuple(fix for fix in found.fixes if fix.change is Change.END_POD))
    assert advice(only_moves) == "it fits on n1 once a pod there is gone"
