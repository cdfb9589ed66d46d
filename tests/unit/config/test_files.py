"""Files that a person names are read whole, or it is told in a line why not."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from hami.config import files
from hami.model.errors import HamiError, Malformed, Retry


def test_a_file_is_read_whole_up_to_the_last_byte_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\n" * 10)
    assert files.read(tmp_path / "a", most=10) == b"\n" * 10


def test_a_file_that_is_too_large_is_not_even_begun(tmp_path: Path) -> None:
    place = tmp_path / "a"
    with place.open("wb") as file:
        file.truncate(10 << 40)  # no disk has it: a hole
    with pytest.raises(Malformed, match=r"a: 'more than 1024 MiB' .* a smaller file"):
        files.read(place, files.CLUSTERS)


def test_what_has_no_end_is_read_no_further_than_a_file_may_go() -> None:
    with pytest.raises(Malformed, match=r"/dev/zero: 'more than 16 MiB' .* a smaller file"):
        files.read(Path("/dev/zero"))


@pytest.mark.parametrize(("name", "said"), [("gone", "No such file"), ("folder", "Is a directory")])
def test_what_cannot_be_opened_is_told_by_its_name(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Malformed, match=f"{name}: '{said}.* a file that can be read"):
        files.read(tmp_path / name)


def test_a_disk_that_fails_while_it_is_read_is_told() -> None:
    with pytest.raises(Malformed, match=f"/proc/self/mem: '{os.strerror(errno.EIO)}'"):
        files.read(Path("/proc/self/mem"))  # its first page is never there


def test_lines_end_alike_wherever_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\r\n2\r3\n")
    assert files.text(tmp_path / "a") == "1\n2\n3\n"


def test_text_is_utf8_with_or_without_a_spreadsheets_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ä", "utf-8-sig")
    assert files.text(tmp_path / "a") == "ä"
    (tmp_path / "b").write_bytes("abcä".encode("latin-1"))
    with pytest.raises(Malformed, match=r"b: b'\\xe4' is not usable: text in UTF-8"):
        files.text(tmp_path / "b")
    (tmp_path / "c").write_bytes(b"\xef\xbb\xbfabc\xe4")
    with pytest.raises(Malformed, match=r"c: b'\\xe4' is not usable: text in UTF-8"):
        files.text(tmp_path / "c")


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    end, begin = os.pipe()
    os.write(begin, b"from another program")
    os.close(begin)
    assert files.read(Path(f"/dev/fd/{end}")) == b"from another program"
    os.close(end)


def test_a_file_is_replaced_as_a_whole_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"yesterday's")
    (tmp_path / "link").symlink_to("a")
    files.write(tmp_path / "link", b"today's")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"today's"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "link"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660])
def test_who_may_not_read_a_file_may_not_read_the_one_in_its_place(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").write_bytes(b"yesterday's")
    (tmp_path / "a").chmod(mode)
    files.write(tmp_path / "a", b"today's")
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_what_is_no_plain_file_is_written_to() -> None:
    end, begin = os.pipe()
    files.write(Path(f"/dev/fd/{begin}"), b"to another program")
    assert os.read(end, 100) == b"to another program"
    os.close(begin)
    os.close(end)


def test_on_a_full_disk_the_old_file_stays_and_it_is_nobodys_wrong_use(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(small)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (small / "a").write_bytes(b"yesterday's")
        with pytest.raises(HamiError, match="a cannot be written: No space left on device") as told:
            files.write(small / "a", b"x" * 20_000)
        assert (type(told.value), told.value.retry) == (HamiError, Retry.NEVER)
        assert [one.read_bytes() for one in small.iterdir()] == [b"yesterday's"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone/a", "No such file or directory"),
        ("plain/a", "Not a directory"),
        ("a" * 253, "File name too long"),  # that of the new file is longer
        (".", "Is a directory"),
    ],
)
def test_a_name_that_no_file_can_have_is_wrong_input(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(Malformed, match=f"'{said}'"):
        files.write(tmp_path / name, b"")


def test_a_device_that_is_full_is_nobodys_wrong_use() -> None:
    with pytest.raises(HamiError, match="/dev/full cannot be written: No space left on device") as told:
        files.write(Path("/dev/full"), b"x")
    assert type(told.value) is HamiError
