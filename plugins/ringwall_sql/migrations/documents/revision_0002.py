"""Words by readers: what a reader may not read does not lie between what it may.

The number of the format goes: that of the revision says as much.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Give each row of `chunk_words` the ACL of its shelf, and let the key begin with it."""
    op.drop_column("chunk_store", "format")
    if op.get_bind().dialect.name == "sqlite":
        _made_anew()
    else:
        _changed()


def _made_anew() -> None:
    """SQLite keeps the rows in the order of the key."""
    op.create_table(
        "chunk_words_by_readers",
        sa.Column("acl", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("word", sa.Text, primary_key=True),
        sa.Column("shelf", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO chunk_words_by_readers (acl, word, shelf, entries) SELECT s.acl, w.word, w.shelf, w.entries "
        "FROM chunk_words AS w JOIN chunk_shelves AS s ON s.number = w.shelf ORDER BY 1, 2, 3"
    )
    op.drop_table("chunk_words")
    op.rename_table("chunk_words_by_readers", "chunk_words")


def _changed() -> None:
    """PostgreSQL keeps them as they came. Who reads meanwhile has read the table as it was, or waits."""
    op.execute("LOCK TABLE chunk_words IN ACCESS EXCLUSIVE MODE")
    op.add_column("chunk_words", sa.Column("acl", sa.BigInteger))
    op.execute("UPDATE chunk_words SET acl = s.acl FROM chunk_shelves AS s WHERE s.number = chunk_words.shelf")
    op.execute("DELETE FROM chunk_words WHERE acl IS NULL")
    op.alter_column("chunk_words", "acl", nullable=False)
    op.drop_constraint("chunk_words_pkey", "chunk_words", type_="primary")
    op.create_primary_key("chunk_words_pkey", "chunk_words", ["acl", "word", "shelf"])
