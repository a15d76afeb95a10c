"""The metadata database: one SQLite file for every store of the core and of the layers above it.

Write-ahead logging with `synchronous=NORMAL`: a kill of the process loses nothing that was committed, and a power
failure may lose the last transactions, never the file. An intent (a row that says what is about to be done to the
world outside the database) is recorded before the deed and settled after it; what is still pending when the database
is opened was interrupted, and its owner finishes it or takes it back.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.errors import DataCorrupt, ResourceExhausted

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
        self._path = path

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
                try:
                    yield self._cursor
                    self._cursor.execute("COMMIT")
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
            self._connection.close()


def _translated(error: sqlite3.Error, path: str) -> DataCorrupt | ResourceExhausted:
    if "full" in str(error):
        return ResourceExhausted(f"{path}: no space left on device")
    return DataCorrupt(f"{path}: {error}")
