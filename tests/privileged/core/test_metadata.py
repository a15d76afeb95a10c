"""The database on a disk that is full to the last byte."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from sampan.core.metadata import Metadata
from sampan.errors import ResourceExhausted

pytestmark = pytest.mark.requires("root")

_ROWS = 200
_SCHEMA = ("CREATE TABLE thing (id INTEGER PRIMARY KEY, data BLOB)",)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(disk: pathlib.Path) -> None:
    with open(disk / "ballast", "ab", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\1" * size)


def filled(disk: pathlib.Path) -> Metadata:
    metadata = Metadata(str(disk / "state.db"))
    metadata.migrate("things", _SCHEMA)
    with metadata.transaction() as cursor:
        cursor.executemany("INSERT INTO thing VALUES (?, ?)", [(row, os.urandom(1000)) for row in range(_ROWS)])
    fill(disk)
    return metadata


def count(metadata: Metadata) -> int:
    with metadata.transaction() as cursor:
        return int(cursor.execute("SELECT count(*) FROM thing").fetchone()[0])


def test_rows_change_and_go(disk: pathlib.Path) -> None:
    metadata = filled(disk)
    # Far more than the log holds: it is emptied again and again.
    for turn in range(4000):
        with metadata.transaction() as cursor:
            cursor.execute("UPDATE thing SET data = ? WHERE id = ?", (os.urandom(1000), turn % _ROWS))
    for row in range(_ROWS):
        intent = metadata.begin("remove", str(row))
        with metadata.transaction() as cursor:
            cursor.execute("DELETE FROM thing WHERE id = ?", (row,))
        metadata.settle(intent)
    assert count(metadata) == 0
    metadata.close()


def test_it_opens_again(disk: pathlib.Path) -> None:
    filled(disk).close()
    for left in range(_ROWS - 10, 0, -10):
        fill(disk)
        metadata = Metadata(str(disk / "state.db"))
        with metadata.transaction() as cursor:
            cursor.execute("DELETE FROM thing WHERE id IN (SELECT id FROM thing LIMIT 10)")
        assert count(metadata) == left
        metadata.close()
    assert sorted(os.listdir(disk)) == ["ballast", "state.db", "state.db-room"]


def test_rows_go_when_no_more_can_come(disk: pathlib.Path) -> None:
    metadata = filled(disk)
    with pytest.raises(ResourceExhausted, match="no space left on device"):
        for row in range(_ROWS, 10 * _ROWS):
            with metadata.transaction() as cursor:
                cursor.execute("INSERT INTO thing VALUES (?, ?)", (row, os.urandom(1000)))
    for row in range(_ROWS):
        with metadata.transaction() as cursor:
            cursor.execute("DELETE FROM thing WHERE id = ?", (row,))
    (disk / "ballast").unlink()
    for row in range(_ROWS):
        with metadata.transaction() as cursor:
            cursor.execute("INSERT INTO thing VALUES (?, ?)", (row, os.urandom(10000)))
    metadata.close()


def test_what_does_not_fit_is_refused_and_nothing_is_lost(disk: pathlib.Path) -> None:
    metadata = filled(disk)
    with pytest.raises(ResourceExhausted, match="no space left on device"), metadata.transaction() as cursor:
        cursor.execute("INSERT INTO thing VALUES (?, ?)", (_ROWS, os.urandom(8 << 20)))
    assert count(metadata) == _ROWS
    with metadata.transaction() as cursor:
        cursor.execute("DELETE FROM thing")
    assert count(metadata) == 0
    metadata.close()
