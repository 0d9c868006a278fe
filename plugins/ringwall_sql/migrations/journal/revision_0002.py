"""Who carries a run on. The runs that are there have nobody, and go on when somebody says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Give each run a worker and a crew, and the workers a table."""
    op.add_column("runs", sa.Column("worker", sa.Text, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("crew", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "workers",
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
    )
