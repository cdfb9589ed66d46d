"""docs/reference/libvgpu-proof.md names only tests that are there."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/libvgpu-proof.md"


def test_every_proof_that_the_page_names_is_there() -> None:
    text = PAGE.read_text()
    links = re.findall(r"`([A-Z][a-z]?)`[^`(]*?\]\(([^)]+)\)", text)
    files = {letter: (PAGE.parent / link).read_text() for letter, link in links}
    named = re.findall(r"\b([A-Z][a-z]?)::(test_\w+)", text)
    assert len(named) > 80
    assert [f"{letter}::{test}" for letter, test in named if f"def {test}(" not in files[letter]] == []
    assert text.count("::") == len(named)
