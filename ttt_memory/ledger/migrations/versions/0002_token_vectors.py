"""Vectors of a passage's tokens, beside the one of the whole passage; passages written before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, empty."""
    op.add_column("ttt_passages", sa.Column("token_vectors", sa.LargeBinary(), nullable=True))
