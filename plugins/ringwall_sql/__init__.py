"""Durable state on SQLAlchemy: SQLite for one machine, PostgreSQL for many."""

from ringwall_sql.documents import SqlDocuments
from ringwall_sql.journal import SqlJournal
from ringwall_sql.ledger import SqlLedger
from ringwall_sql.stores import SqlMemories, SqlProfiles
from ringwall_sql.upgrading import upgrade

__all__ = ["SqlDocuments", "SqlJournal", "SqlLedger", "SqlMemories", "SqlProfiles", "upgrade"]
