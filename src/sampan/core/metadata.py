"""The metadata database: one SQLite file for every store of the core and of the layers above it.

Write-ahead logging with `synchronous=NORMAL`: a kill of the process loses nothing that was committed, and a power
failure may lose the last transactions, never the file. An intent (a row that says what is about to be done to the
world outside the database) is recorded before the deed and settled after it; what is still pending when the database
is opened was interrupted, and its owner finishes it or takes it back.

Even to delete a row takes room on the disk: its page goes to the log first. So the log's room is taken when the
database is opened, before anything fills the disk, and the log is emptied into the database before it is used up. This
needs no room where the database's file has all its pages; so when it grows, the log is emptied at once, and some pages
are added that nothing is in yet. SQLite removes the log when the database is closed: another name keeps the file, which
becomes the log of the next time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.errors import DataCorrupt, ResourceExhausted

_ROOM = 5 << 20
"""Bytes of the log that are always there: it is emptied after a thousand pages of 4 KiB."""
_INDEX_ROOM = 32 << 10
"""The index of the log (`-shm`) is made anew each time."""
_LOG_HEADER = 32
_PAGE = 4096
_SPARE_PAGES = 64
_ALL_PAGES = 0xFFFFFFFE
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS intent (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL, detail BLOB NOT NULL,
        created INTEGER NOT NULL)""",
)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What was about to happen to `subject`. `created`: nanoseconds since the epoch."""

    id: int
    kind: str
    subject: str
    detail: bytes
    created: int


class Metadata:
    """The database at `path`, made if it is not there. Safe to use from several threads; one transaction at a time."""

    def __init__(self, path: str) -> None:
        """Raises DataCorrupt when the file is no database, ResourceExhausted when the disk is full."""
        self._lock = threading.RLock()
        self._depth = 0
        self._path = path
        self._log, self._kept = f"{path}-wal", f"{path}-room"
        try:
            self._take_log()
        except OSError as error:
            raise ResourceExhausted(f"{error.filename or path}: {(error.strerror or '').lower()}") from error
        try:
            # Transactions are begun and ended here alone, so sqlite3's own are off.
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._cursor = self._connection.cursor()
            self._cursor.execute("PRAGMA journal_mode = WAL")
            self._cursor.execute("PRAGMA synchronous = NORMAL")
            self._cursor.execute("PRAGMA foreign_keys = ON")
            self._cursor.execute("PRAGMA busy_timeout = 5000")
            for statement in _SCHEMA:
                self._cursor.execute(statement)
        except sqlite3.Error as error:
            raise _translated(error, path) from error
        self._pages = 0
        """How many pages the file on disk has room for."""
        if _extend(self._log, _ROOM):
            self._grown(self._number("page_count"))

    def _take_log(self) -> None:
        """Have the log of the last time, if it was kept: nothing in it counts any more."""
        try:
            descriptor = os.open(self._kept, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if os.path.exists(self._log):  # It was not closed, and then that is the one.
                os.unlink(self._kept)
                return
            os.pwrite(descriptor, bytes(_LOG_HEADER), 0)
            os.ftruncate(descriptor, _ROOM)
            os.rename(self._kept, self._log)
        finally:
            os.close(descriptor)

    def _number(self, pragma: str) -> int:
        return int(self._cursor.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _grown(self, pages: int) -> None:
        """Have the file grow too, now that there is room for it, and by some spare pages more. If there is no room, let
        the database not grow any further: the log's room is for changes that take none."""
        if self._empty_log():
            self._number(f"max_page_count = {_ALL_PAGES}")
            self._pages = pages
            if self._number("freelist_count") < _SPARE_PAGES and self._has_room():
                with contextlib.suppress(sqlite3.OperationalError):
                    self._add_spare_pages()
                pages = self._number("page_count")
                if self._empty_log():
                    self._pages = pages
        if self._pages < pages:
            self._number(f"max_page_count = {pages}")

    def _has_room(self) -> bool:
        found = os.statvfs(self._path)
        return found.f_bfree * found.f_frsize > 4 * _SPARE_PAGES * _PAGE

    def _add_spare_pages(self) -> None:
        # One statement after the other: of what is made and dropped at once, nothing would be written.
        self._cursor.execute("CREATE TABLE IF NOT EXISTS spare (data BLOB)")
        self._cursor.execute("INSERT INTO spare VALUES (zeroblob(?))", (_SPARE_PAGES * _PAGE,))
        self._cursor.execute("DROP TABLE spare")

    def _empty_log(self) -> bool:
        """Write all of the log's pages into the database. False if there is no room."""
        try:
            _, pages, written = self._cursor.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.OperationalError:
            return False
        return bool(pages == written)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """A cursor inside a transaction that is committed at the end, and rolled back by any exception.

        Nested uses join the outer transaction. Raises ResourceExhausted when the disk is full.
        """
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield self._cursor
                finally:
                    self._depth -= 1
                return
            try:
                self._cursor.execute("BEGIN IMMEDIATE")
                self._depth = 1
                changes = self._connection.total_changes
                try:
                    yield self._cursor
                    pages = self._number("page_count") if self._connection.total_changes > changes else 0
                    self._cursor.execute("COMMIT")
                    if pages > self._pages:
                        self._grown(pages)
                except BaseException:
                    # A full disk rolls back by itself, and there is no transaction any more.
                    if self._connection.in_transaction:
                        self._cursor.execute("ROLLBACK")
                    raise
                finally:
                    self._depth = 0
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    def migrate(self, name: str, statements: Sequence[str]) -> None:
        """Run the statements once in the database's life, all or none; `name` remembers that they ran."""
        with self.transaction() as cursor:
            if cursor.execute("SELECT 1 FROM migration WHERE name = ?", (name,)).fetchone():
                return
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("INSERT INTO migration VALUES (?)", (name,))

    def begin(self, kind: str, subject: str, detail: bytes = b"") -> int:
        """Record an intent; returns its number for `settle`."""
        with self.transaction() as cursor:
            cursor.execute(
                "INSERT INTO intent (kind, subject, detail, created) VALUES (?, ?, ?, ?)",
                (kind, subject, detail, time.time_ns()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def settle(self, intent: int) -> None:
        """Forget an intent: what it announced is done, or was taken back. Idempotent."""
        with self.transaction() as cursor:
            cursor.execute("DELETE FROM intent WHERE id = ?", (intent,))

    def pending(self, kind: str | None = None) -> list[Intent]:
        """The intents that are not settled, oldest first."""
        query = "SELECT id, kind, subject, detail, created FROM intent"
        with self.transaction() as cursor:
            if kind is None:
                rows = cursor.execute(f"{query} ORDER BY id").fetchall()
            else:
                rows = cursor.execute(f"{query} WHERE kind = ? ORDER BY id", (kind,)).fetchall()
        return [Intent(id=row[0], kind=row[1], subject=row[2], detail=row[3], created=row[4]) for row in rows]

    def close(self) -> None:
        """Close the file; what is not committed is rolled back."""
        with self._lock:
            with contextlib.suppress(OSError):
                os.link(self._log, self._kept)
            self._connection.close()
            if os.path.exists(self._log):  # Somebody else has it open, and the log is theirs.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._kept)
            else:
                _extend(self._kept, _ROOM + _INDEX_ROOM)


def _extend(path: str, size: int) -> bool:
    """Have blocks for the file's first bytes, if there is room. What SQLite has not written there it takes for no part
    of the log."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _translated(error: sqlite3.Error, path: str) -> DataCorrupt | ResourceExhausted:
    if "full" in str(error):
        return ResourceExhausted(f"{path}: no space left on device")
    return DataCorrupt(f"{path}: {error}")
