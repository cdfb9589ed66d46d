"""A wrong manifest is told in one line, with the place and the way out."""

import pytest

from hami.config.yamls import Unusable, document, documents


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: {a: b\n  c: [d}\n", "line 2, column 4: expected ',' or '}', but got ':': close the bracket of before"),
        ("a: b\n---\na: c\n", "line 2, column 1: but found another document: one document a file: split it at"),
        ("a:\n\tb: c\n", "line 2, column 1: found character '\\t' that cannot start any token: indent by spaces"),
        ("a: b: c\n", 'line 1, column 5: mapping values are not allowed here: put a text that has ": " in quotes'),
        ("a: !x b\n", "line 1, column 4: could not determine a constructor for the tag '!x': leave the tag"),
        ("a:\n  on: 2026-13-45\n", "line 2, column 7: '2026-13-45' is of no such kind as it looks like: month must"),
        ("kind: Pod\nx: a\x01b\n", "line 2, column 5: character #x01 is not allowed: special characters are not"),
        ("a: '\x01'\n", "line 1, column 5: character #x01 is not allowed"),
        ("{{ .Values.pod }}\n", "line 1, column 2: found unhashable key: a key is a plain text; a template"),
        ("a: *b\n", "line 1, column 4: found undefined alias 'b': name an anchor (&...) that stands before it"),
        ("a: !!bool maybe\n", "line 1, column 4: 'maybe' is of no such kind as its tag says: put it in quotes"),
        ("a: !!timestamp b\n", "line 1, column 4: 'b' is of no such kind as its tag says: put it in quotes"),
        ("a: !!float ''\n", "line 1, column 4: '' is of no such kind as its tag says: put it in quotes"),
        ('a: "b\n', "line 2, column 1: found unexpected end of stream: close the quote"),
        ("a:\n  - b\n c: d\n", "line 3, column 2: expected <block end>, but found '<block mapping start>': mend the"),
        (
            "a:\n  b: 1\n  'b': 2\n",
            "line 3, column 3: the key 'b' stands twice, first in line 2: leave one of the two out",
        ),
        (
            "- {1: a, '1': b}\n",
            "line 1, column 10: the key '1' stands twice, first in line 1: leave one of the two out",
        ),
        ("a: &b {c: *b}\n", "it is nested too deeply: leave an alias (*...) out of what its own anchor (&...) names"),
    ],
)
def test_a_fault_is_one_line_with_its_place_and_the_way_out(text: str, said: str) -> None:
    with pytest.raises(Unusable) as fault:
        document(text, "pod.yaml")
    told = str(fault.value)
    assert told.startswith(f"pod.yaml, {said}" if said.startswith("line") else f"pod.yaml: {said}"), told
    assert "\n" not in told
    assert told.count(": ") > 1


def test_what_is_well_is_read_as_it_stands() -> None:
    assert document("a: &x [1, b]\nc: *x\n", "pod.yaml") == {"a": [1, "b"], "c": [1, "b"]}
    assert document("", "pod.yaml") is None


def test_a_key_may_stand_again_elsewhere_and_over_what_is_merged_in() -> None:
    text = "x: &x {a: 1}\nd: {e: {y: &y {<<: *x, a: 2}}}\nz: {<<: *y, a: 3}\n"
    assert document(text, "pod.yaml") == {"x": {"a": 1}, "d": {"e": {"y": {"a": 2}}}, "z": {"a": 3}}


def test_each_of_several_documents_may_have_the_same_keys() -> None:
    assert documents("a: 1\n---\n---\na: 2\n", "pods.yaml") == [{"a": 1}, {"a": 2}]
    with pytest.raises(Unusable, match=r"pods.yaml, line 4, column 1: the key 'a' stands twice, first in line 3: "):
        documents("a: 1\n---\na: 2\na: 3\n", "pods.yaml")
