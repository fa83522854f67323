"""What must survive a power cut: messages the broker has not acknowledged, and where each rule stands.

One SQLite file, used by one thread. A window's results, the new states and the window's digest are
committed together, before the broker is told that the window was received.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mqtt_monitor.hysteresis import State

_DIGESTS_KEPT = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, body TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (
    source TEXT NOT NULL, rule TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (source, rule));
CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE);
"""


class StoreError(Exception):
    """The file cannot be used; says which and why."""


@dataclass(frozen=True)
class Outgoing:
    """A message for the broker; ``id`` grows with every message and is part of what is sent."""

    id: int
    topic: str
    body: Mapping[str, Any]

    def payload(self) -> bytes:
        """As it is published: a receiver knows by the id what it has had."""
        return json.dumps({"id": self.id, **self.body}, separators=(",", ":")).encode()


class Store:
    """Opened once; see the module."""

    def __init__(self, path: Path, *, rows_most: int, bytes_most: int) -> None:
        self._path = path
        self._rows_most = rows_most
        self._bytes_most = bytes_most
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # What was committed is on the disk: the broker forgets the window after it.
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA journal_size_limit=1048576")
            self._database.executescript(_SCHEMA)
            totals = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM outbox"
            self._rows, self._bytes = self._database.execute(totals).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        self._database.close()

    @property
    def pending(self) -> int:
        """Messages that wait."""
        return int(self._rows)

    def states(self, source: str) -> dict[str, State]:
        """Each rule's state for a source, by the rule's name."""
        rows = self._database.execute("SELECT rule, state FROM state WHERE source = ?", (source,))
        return {rule: State(**json.loads(state)) for rule, state in rows}

    def has_seen(self, digest: bytes) -> bool:
        """Whether a window of this digest is among the last that were committed."""
        query = "SELECT 1 FROM seen WHERE digest = ?"
        return self._database.execute(query, (digest,)).fetchone() is not None

    def commit(
        self,
        *,
        source: str = "",
        digest: bytes | None = None,
        states: Mapping[str, State] | None = None,
        messages: Iterable[tuple[str, Mapping[str, Any]]] = (),
    ) -> int:
        """All of it or nothing; returns how many of the oldest messages had to go for it."""
        rows, size = self._rows, self._bytes
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for topic, body in messages:
                self._add(topic, json.dumps(body))
            for rule, state in (states or {}).items():
                row = (source, rule, json.dumps(asdict(state)))
                self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", row)
            if digest is not None:
                self._remember(digest)
            dropped = self._drop_oldest()
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._rows, self._bytes = rows, size
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StoreError(f"{self._path}: {error}") from error
        return dropped

    def after(self, last: int, most: int) -> list[Outgoing]:
        """Up to ``most`` messages with ids above ``last``, oldest first."""
        query = "SELECT id, topic, body FROM outbox WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._database.execute(query, (last, most)).fetchall()
        return [Outgoing(number, topic, json.loads(body)) for number, topic, body in rows]

    def delivered(self, number: int) -> None:
        """The broker has it. One that was dropped meanwhile is none of our business any more."""
        try:
            self._remove("id = ?", number)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _add(self, topic: str, body: str) -> None:
        size = len(topic.encode()) + len(body.encode())
        insert = "INSERT INTO outbox (topic, body, bytes) VALUES (?, ?, ?)"
        self._database.execute(insert, (topic, body, size))
        self._rows += 1
        self._bytes += size

    def _remember(self, digest: bytes) -> None:
        insert = "INSERT OR IGNORE INTO seen (digest) VALUES (?)"
        self._database.execute(insert, (digest,))
        prune = "DELETE FROM seen WHERE id <= (SELECT MAX(id) FROM seen) - ?"
        self._database.execute(prune, (_DIGESTS_KEPT,))

    def _drop_oldest(self) -> int:
        dropped = 0
        while self._rows > self._rows_most or self._bytes > self._bytes_most:
            dropped += self._remove("id = (SELECT MIN(id) FROM outbox) AND 1 = ?", 1)
        return dropped

    def _remove(self, where: str, value: int) -> int:
        row = self._database.execute(
            f"SELECT id, bytes FROM outbox WHERE {where}", (value,)
        ).fetchone()
        if row is None:
            return 0
        self._database.execute("DELETE FROM outbox WHERE id = ?", (row[0],))
        self._rows -= 1
        self._bytes -= row[1]
        return 1
