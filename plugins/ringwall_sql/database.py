"""One database as the stores here use it: opened at once, read in threads, its errors explained."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from ringwall.errors import ConfigurationError, RingwallError
from ringwall_sql.schema import Schema

T = TypeVar("T")

Synchronous = Literal["NORMAL", "FULL"]
"""What a commit waits for on SQLite: NORMAL survives a crash of the process, FULL also one of the machine."""

BUSY_TIMEOUT: Final = 3.0
"""Seconds to wait for a lock that somebody else holds, unless told otherwise."""

_CHECKPOINT_PAGES: Final = 4000  # 16 MB; a page that is written again and again is copied back once

_WRITING: Final = "ringwall_writing"

_EXPECTED: Final = "a path, or a URL such as `postgresql+psycopg://host/database`"

_LOCK_TABLES: Final = sa.text("SELECT pg_advisory_xact_lock(1380535880)")
"""Who makes or changes tables in PostgreSQL takes turns; on SQLite who writes does anyway."""

_SQLITE_ERRORS: Final = {
    "SQLITE_BUSY": ("is locked", "end what holds the lock, or give a longer `busy_timeout`, and try again"),
    "SQLITE_LOCKED": ("is locked", "end what holds the lock, and try again"),
    "SQLITE_READONLY": ("is read-only", "allow this process to write to the file and to its directory"),
    "SQLITE_PERM": ("may not be opened", "allow this process to write to the file and to its directory"),
    "SQLITE_CANTOPEN": ("cannot be opened", "create its directory, and allow this process to write there"),
    "SQLITE_FULL": ("is full", "free some space on its disk, and try again"),
    "SQLITE_IOERR": ("could not be read or written", "look whether its disk is full or failing"),
    "SQLITE_CORRUPT": ("is damaged", "put it aside and restore a backup"),
    "SQLITE_NOTADB": ("is not an SQLite database", "put it aside, or give another path"),
}

_AS_IN_SQLITE: Final = {"55P03": "SQLITE_LOCKED", "53100": "SQLITE_FULL", "25006": "SQLITE_READONLY"}
"""What PostgreSQL calls the same."""

_NOT_ALLOWED: Final = ("SQLITE_READONLY", "SQLITE_PERM", "42501")


class Database:
    """Opens `url_or_path`, sees that it has the tables of `schema` as they are today, and hands out connections.

    Tables of an older revision are brought up to date if `migrate`; where there are none they are made if `create`.
    Whatever the database refuses is raised as `failure`, with a hint: when opening, too. A URL that names none raises
    `ConfigurationError`. No error tells a password.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        schema: Schema,
        *,
        failure: Callable[..., RingwallError],
        migrate: bool = True,
        create: bool = True,
        synchronous: Synchronous = "NORMAL",
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.engine = _engine(_url(url_or_path))
        self.on_sqlite = self.engine.dialect.name == "sqlite"
        self._failure = failure
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="ringwall-sql")
        if self.on_sqlite:
            _prepare_sqlite(self.engine, synchronous, busy_timeout, schema.pragmas)
        try:
            with self.explaining():
                self.found = self._settle(schema, migrate=migrate, create=create)
                """The revision of the tables that were there; None if there were none."""
        except RingwallError:
            self.engine.dispose()
            raise

    def _settle(self, schema: Schema, *, migrate: bool, create: bool) -> str | None:
        with self.reading() as connection:
            there = schema.revision(connection)
        if there == schema.head or (there is None and not create):
            return there  # so that a read-only database can still be read
        if there is not None and (there > schema.head or not migrate):
            raise self._other(schema, there)
        try:
            self._bring_up(schema)
        except self.errors as error:
            if there is not None and _code(error).startswith(_NOT_ALLOWED):
                raise self._other(schema, there) from error
            raise
        return there

    def _bring_up(self, schema: Schema) -> None:
        """Make the tables, or bring them up to date: all of it or nothing, and one process after the other."""
        if self.on_sqlite:
            with self.engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
        with self.writing() as connection:
            if not self.on_sqlite:
                connection.execute(_LOCK_TABLES)
            there = schema.revision(connection)  # somebody else may have been here meanwhile
            if there is None:
                if not self.on_sqlite and schema.extension:
                    self._extend(connection, schema.extension)
                schema.create(connection)
            elif there < schema.head:
                schema.upgrade(connection, there)

    def _other(self, schema: Schema, there: str) -> RingwallError:
        older = "let somebody who may change its tables open it once, or call `ringwall_sql.upgrade` on it"
        return self._failure(
            f"the {schema.name} in {self.name!r} are kept in revision {there}",
            expected=f"revision {schema.head}",
            hint=older if there < schema.head else "use the version of Ringwall that wrote them, or a newer one",
        )

    def _extend(self, connection: sa.Connection, extension: str) -> None:
        known = sa.text("SELECT count(*) FROM pg_extension WHERE extname = :name")
        if connection.execute(known, {"name": extension}).scalar_one():
            return
        try:
            connection.exec_driver_sql(f"CREATE EXTENSION IF NOT EXISTS {extension}")
        except self.errors as error:
            raise self._failure(
                f"the database needs the extension {extension!r}, and it could not be created",
                hint=f"install it on the server, and let a superuser run `CREATE EXTENSION {extension}`",
            ) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one moment of the database, however long it reads."""
        with self.engine.connect() as connection:
            if not self.on_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection that writes all or nothing, and waits here for the right to."""
        with self.engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def outside(self) -> Iterator[Any]:
        """The driver's cursor outside any transaction, for what runs in none."""
        with self.engine.connect() as connection:
            if not self.on_sqlite:  # there transactions begin where we say so
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection.connection.cursor()

    def empty_log(self) -> None:
        """Take out of SQLite's write-ahead log what was deleted; whoever reads meanwhile is waited for.

        Raises what the database raises when somebody reads for longer than that.
        """
        if not self.on_sqlite:
            return
        with self.outside() as cursor:
            if cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise self._failure(
                    f"the database {self.name!r} is being read, and its log still holds what was deleted",
                    hint="try again when nobody reads",
                )

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, its errors explained."""

        def explained() -> T:
            with self.explaining():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, explained)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise as `failure` what the database refuses."""
        try:
            yield
        except self.errors as error:
            raise self.explain(error) from error

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What SQLAlchemy and the driver beneath it raise."""
        return (sa.exc.SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error)

    def is_down(self, error: BaseException) -> bool:
        """Whether the database itself fails (locked, full, gone), not what it was asked."""
        return isinstance(_cause(error), self.engine.dialect.loaded_dbapi.OperationalError)

    def explain(self, error: BaseException) -> RingwallError:
        """What the database refused, and what may help; names the file, never its path or a password."""
        code = _code(error)
        for prefix, (what, hint) in _SQLITE_ERRORS.items():
            if code.startswith(prefix):
                return self._failure(f"the database {self.name!r} {what}", hint=hint)
        if not self.on_sqlite and not code and self.is_down(error):
            look = "see whether its server runs, and whether host, port, database, user and password are right"
            return self._failure(f"the database {self.name!r} cannot be reached", hint=look)
        kind = type(_cause(error)).__name__
        return self._failure(f"the database {self.name!r} failed: {kind}", hint="see its own log")

    @property
    def name(self) -> str:
        """What errors call it: never its path, its host or a password."""
        return Path(self.engine.url.database or "").name

    async def close(self) -> None:
        """Wait for what is being read, and close every connection."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self.engine.dispose)


def _cause(error: BaseException) -> BaseException:
    """What the driver raised."""
    return getattr(error, "orig", None) or error


def _code(error: BaseException) -> str:
    """What SQLite calls it; PostgreSQL's own code if that is not in `_AS_IN_SQLITE`."""
    state = getattr(_cause(error), "sqlstate", None) or ""
    return getattr(_cause(error), "sqlite_errorname", "") or _AS_IN_SQLITE.get(state, state)


def _engine(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver {error.name!r} of {url.drivername!r} is not installed",
            hint="for `postgresql+psycopg://` install the extra: `ringwall[postgres]`",
        ) from error
    except sa.exc.NoSuchModuleError as error:
        raise ConfigurationError(f"{url.drivername!r} is no kind of database", expected=_EXPECTED) from error


def _url(url_or_path: str | Path) -> sa.URL:
    text = str(url_or_path)
    try:
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    except (sa.exc.ArgumentError, ValueError):
        # Not even the cause is told: with a slip in the URL, that may be a part of the password.
        raise ConfigurationError("what should be the URL of a database cannot be read", expected=_EXPECTED) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            f"{text!r} is a database in memory, of which each thread would see its own",
            expected=_EXPECTED,
            hint="what need not survive the process is kept by the in-memory stores of the core",
        )
    return url


def _prepare_sqlite(engine: sa.Engine, synchronous: Synchronous, busy_timeout: float, pragmas: Sequence[str]) -> None:
    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def begun(connection: sa.Connection) -> None:
        # A transaction that first reads and then writes can fail in the middle: who will write locks at once.
        writing = connection.get_execution_options().get(_WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begun)


# Lone surrogates have no UTF-8, and PostgreSQL has no NUL: both are written as a mark and four hexadecimal
# digits, and so is the mark. JSON text never holds the mark itself, so that stored JSON stays JSON.
_MARK: Final = "\x1a"
_ODD: Final = re.compile("[\x00\x1a\ud800-\udfff]")
_WRITTEN: Final = re.compile("\x1a([0-9a-f]{4})")


def stored(text: str) -> str:
    """`text` as every database can hold it; most text as it is."""
    if text.isascii() and "\0" not in text and _MARK not in text:
        return text
    return _ODD.sub(lambda odd: f"{_MARK}{ord(odd[0]):04x}", text)


def restored(text: str) -> str:
    """What `stored` was given."""
    return _WRITTEN.sub(lambda code: chr(int(code[1], 16)), text) if _MARK in text else text
