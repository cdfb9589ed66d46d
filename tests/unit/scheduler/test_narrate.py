"""Events and reasons: short where they would be long, and the same words for the same thing."""

from typing import Any

import msgspec
import pytest

from hami.model.refusal import Reason, Refusal
from hami.plan.exact.refuse import Form
from hami.plan.fleet.refusals import Refusals
from hami.scheduler.held.narrate import GOOD_NEWS_AT_ONCE, Narrator, by_reason
from hami.scheduler.held.phrases import KEPT, Phrase, Phrases
from hami.scheduler.verbs.asked import told
from hami.wire.objects import Pod

MEMORY = Refusal(((Reason.INSUFFICIENT_MEMORY, 2),), 2, "missing 10 MiB on the best card")
TYPE = Refusal(((Reason.TYPE_MISMATCH, 1),), 1)
MIXED = Refusal(((Reason.TYPE_MISMATCH, 1), (Reason.INSUFFICIENT_CORE, 1)), 2)


def test_the_most_frequent_reasons_come_first_and_long_lists_are_counted() -> None:
    reasons = {f"n{number:02}": "CardInsufficientMemory" for number in range(13)} | {"z": "CardTypeMismatch"}
    assert by_reason(reasons) == [
        "13 nodes CardInsufficientMemory(n00,n01,n02,n03,n04,n05,n06,n07,n08,n09 and 3 more)",
        "1 nodes CardTypeMismatch(z)",
    ]


def test_a_narrator_without_a_recorder_is_silent(stage: Any) -> None:
    waiter = stage.engine.waiting.refused(stage.engine.ask(_pod(stage)), 0.0)
    Narrator().refused(waiter, ["CardInsufficientMemory"], lambda: {"a": "CardInsufficientMemory"}, 1)
    assert waiter.told == ""


def test_a_changed_reason_is_told_again(stage: Any) -> None:
    waiter = stage.engine.waiting.refused(stage.engine.ask(_pod(stage)), 0.0)
    narrator = Narrator(stage.events)
    for reason in ("CardInsufficientMemory", "CardInsufficientMemory", "CardTypeMismatch"):
        narrator.refused(waiter, [reason], lambda reason=reason: {"a": reason}, 1)
    assert stage.events.reasons == ["FilteringFailed"] * 4


def test_good_news_of_thousands_of_pods_is_left_out_and_bad_news_is_not(stage: Any) -> None:
    narrator, ref = Narrator(stage.events), stage.engine.ask(_pod(stage)).pod
    for _ in range(int(GOOD_NEWS_AT_ONCE) + 100):
        narrator.bound(ref, "n1")
    narrator.bind_failed(ref, "n1", "refused")
    assert GOOD_NEWS_AT_ONCE <= stage.events.reasons.count("BindingSucceed") < GOOD_NEWS_AT_ONCE + 100
    assert stage.events.reasons[-1] == "BindingFailed"


def test_preemption_is_offered_where_one_reason_could_be_cured() -> None:
    failed, lasting = map(told, Phrases().spoken(Refusals.of({"a": MEMORY, "b": TYPE, "c": MIXED})))
    assert failed == {
        "a": "2/2 CardInsufficientMemory: missing 10 MiB on the best card",
        "c": "1/2 CardInsufficientCore, 1/2 CardTypeMismatch",
    }
    assert lasting == {"b": "1/1 CardTypeMismatch"}


def test_phrases_are_right_again_after_they_were_forgotten() -> None:
    phrases = Phrases()
    many = [Refusal(((Reason.INSUFFICIENT_MEMORY, 1),), 1, f"missing {number} MiB") for number in range(KEPT + 5)]
    failed, _ = phrases.spoken(Refusals.of({f"n{number}": refusal for number, refusal in enumerate(many)}))
    assert len(told(failed)) == len(many)
    assert {text for text, _ in failed} == {"1/1 CardInsufficientMemory"}
    assert phrases.spoken(Refusals.of({"a": many[-1]}))[0] == [
        (f"1/1 CardInsufficientMemory: missing {KEPT + 4} MiB", ["a"])
    ]
    assert phrases.reasons(Refusals.of({"a": many[0], "b": TYPE})) == {
        "a": "CardInsufficientMemory",
        "b": "CardTypeMismatch",
    }


def _pod(stage: Any) -> Any:

    return msgspec.convert(stage.pod("p", gpu=1, gpumem=1000), Pod)


def test_texts_with_an_amount_each_are_kept_of_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.scheduler.held.phrases.TEXTS", 10)
    phrase = Phrase(Form((), 1, "", "best"), "", "", lasting=False)
    for missing in range(1, 36):
        assert f"missing {missing} MiB" in phrase.text(missing)
    assert len(phrase.texts) <= 10
