"""Where a lab keeps its files, and what is said of a place that cannot be one."""

from pathlib import Path

import pytest

from hami.lab import Lab, LabError, resident


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"file: File exists; name another place with --folder"):
        Lab(tmp_path / "file").start()


def test_a_place_that_is_no_folder_has_nothing_to_take_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = resident.Place(tmp_path / "file")
    place.remove()
    assert place.running() is None


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(LabError, match="has files that are not a lab's"):
        Lab(tmp_path).start()
    assert (tmp_path / "thesis.tex").read_text() == "all of it"
