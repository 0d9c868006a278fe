"""Accounts, and what is reserved in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "budget_accounts",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("most", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "budget_holds",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("hold", sa.Text, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("sure", sa.Boolean, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
