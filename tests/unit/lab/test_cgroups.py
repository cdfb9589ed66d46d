"""Control groups on the three layouts, in a folder that looks like /sys/fs/cgroup."""

from pathlib import Path

import pytest

from hami.lab import cgroups
from hami.lab.errors import LabError


def unified(root: Path) -> Path:
    (root / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    (root / "cgroup.subtree_control").write_text("")
    (root / "cgroup.procs").write_text("")
    return root


def split(root: Path) -> Path:
    for name in ("cpuset", "memory", "unified"):
        (root / name).mkdir()
        (root / name / "cgroup.procs").write_text("")
    (root / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (root / "notes").mkdir()
    return root


def test_one_hierarchy_on_v2_and_one_a_controller_on_v1(tmp_path: Path) -> None:
    assert cgroups.hierarchies(tmp_path) == ()
    assert [path.name for path in cgroups.hierarchies(split(tmp_path))] == ["cpuset", "memory", "unified"]
    assert cgroups.hierarchies(unified(tmp_path)) == (tmp_path,)


def test_a_nodes_group_is_made_and_removed_in_every_hierarchy(tmp_path: Path) -> None:
    root = split(tmp_path)
    cgroups.make("/hami-lab/aa/node", root)
    assert (root / "memory/hami-lab/aa/node").is_dir()
    assert cgroups.identities(root) == {"aa"}
    assert cgroups.remove("aa", root) == []
    assert not list(root.glob("*/hami-lab"))


def test_controllers_are_handed_down_on_v2(tmp_path: Path) -> None:
    cgroups.make("/hami-lab/aa/node", unified(tmp_path))
    # A plain file keeps the last of the four writes; the kernel adds them up.
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"


def test_the_group_of_one_lab_stays_when_another_goes(tmp_path: Path) -> None:
    root = split(tmp_path)
    cgroups.make("/hami-lab/aa/node", root)
    cgroups.make("/hami-lab/bb/node", root)
    cgroups.remove("aa", root)
    assert cgroups.identities(root) == {"bb"}


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    root = split(tmp_path)
    cgroups.make("/hami-lab/aa/node", root)
    busy = root / "memory/hami-lab/aa/node"
    (busy / "cgroup.procs").write_text("")  # a real group's files do not stand in the way, a plain folder's do
    assert busy in cgroups.remove("aa", root, timeout=0)


def test_a_controller_that_does_not_come_down_on_v2_is_named(tmp_path: Path) -> None:
    root = unified(tmp_path)
    for folder in ("hami-lab", "hami-lab/aa", "hami-lab/aa/node"):
        (root / folder).mkdir()
        (root / folder / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(LabError, match="lacks the cgroup controllers cpuset, memory"):
        cgroups.make("/hami-lab/aa/node", root)
