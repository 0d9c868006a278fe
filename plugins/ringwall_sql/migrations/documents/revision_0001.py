"""Chunks, who reads them, their words and their vectors."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import UserDefinedType

revision = "0001"
down_revision = None


class PgVector(UserDefinedType[str]):
    """pgvector's type, of any dimension."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


def upgrade() -> None:
    """From an empty database, which in PostgreSQL has the extension `vector`."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "chunk_store",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("born", sa.Text, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sa.Column("dimension", sa.Integer),
    )
    op.create_table(
        "acls",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("grants", sa.Text, nullable=False),
    )
    op.create_table(
        "acl_grants",
        sa.Column("grant_key", sa.Text, primary_key=True),
        sa.Column("acl", number, primary_key=True, index=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunk_shelves",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("acl", number, nullable=False, index=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("top", sa.Integer, nullable=False),
    )
    op.create_table(
        "chunk_documents",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("id", sa.Text, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("document", number, nullable=False, index=True),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "chunk_words",
        sa.Column("word", sa.Text, primary_key=True),
        sa.Column("shelf", number, primary_key=True, autoincrement=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunk_vectors",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("acl", number, nullable=False, index=True),
        sa.Column("vector", sa.LargeBinary().with_variant(PgVector(), "postgresql"), nullable=False),
    )
