"""Alembic's entry: run the revisions on the connection, inside the transaction, that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from ttt_memory.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
