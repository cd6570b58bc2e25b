"""Files are written whole or not at all, and tables in Markdown."""

import os
import stat

import pytest

from strdiffusion.system.errors import UserError
from strdiffusion.system.files import file_hash, replacing, write_atomically, write_text
from strdiffusion.system.markdown import markdown_table


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.match(".a.txt.*.tmp")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    with pytest.raises(OSError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_folders_names_and_permissions(tmp_path, durable):
    path = tmp_path / "new" / ("é" * 120 + ".txt")  # 244 bytes, of 255 that a name may have
    before = os.umask(0o022)
    try:
        write_atomically(path, b"content", durable)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"content" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert file_hash(path) == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_texts(tmp_path):
    write_text(tmp_path / "a.txt", "ä\r\n\udcff")  # the name of a file may be no UTF-8
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\r\n\xff"
    with pytest.raises(UserError, match=r"a\.txt/b\.txt cannot be written: "):
        write_text(tmp_path / "a.txt" / "b.txt", "")


def test_markdown_tables():
    lines = [["", "images"], ["all", "24"]]
    assert markdown_table(lines) == "| | images |\n|---|---|\n| all | 24 |"
    assert markdown_table(lines, "left") == "|     | images |\n| --- | ------ |\n| all | 24     |"
    assert markdown_table(lines, "right") == "|     | images |\n| --- | ------ |\n| all |     24 |"
    assert markdown_table(lines, "right", marked=True) == "|     | images |\n| --: | -----: |\n| all |     24 |"
