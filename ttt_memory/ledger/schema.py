"""The tables. Every row but a tenant's own has the tenant in its primary key; nothing here is of one dialect only.

Free text (names, streams, labels, terms, documents) is stored as UTF-8 bytes: Python strings may hold NUL, PostgreSQL
text may not. Text that must be unique or looked up is indexed by a fixed-size key beside it, because B-tree rows are
limited. Times are integer microseconds since 1970 UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION_TABLE = "ttt_alembic_version"
CHUNK_CHARACTERS = 65_536
TRANSACTION_BYTES = 4 * 2**20

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _tenant() -> Column[int]:
    return Column("tenant", Integer, ForeignKey("ttt_tenants.id"), primary_key=True, autoincrement=False)


def _of_document() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant", "document"], ["ttt_documents.tenant", "ttt_documents.id"])


tenants = Table(
    "ttt_tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", LargeBinary, nullable=False),
    Column("name_key", LargeBinary(32), nullable=False, unique=True),
    Column("key", LargeBinary(32), nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("branch", BigInteger, nullable=False),
    Column("head_position", BigInteger, nullable=False),
    Column("next_position", BigInteger, nullable=False),
    Column("next_passage", BigInteger, nullable=False),
    Column("relearning", Boolean, nullable=False),
    Column("model", Text),
    Column("embedder", Text),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a dropped tenant's number is never given to another
)

branches = Table(
    "ttt_branches",
    metadata,
    _tenant(),
    Column("branch", BigInteger, primary_key=True, autoincrement=False),
    Column("parent", BigInteger),
    Column("fork_position", BigInteger, nullable=False),
)

# A document is live where live_key equals content_key, and detached (or not committed: position null) where it is null.
documents = Table(
    "ttt_documents",
    metadata,
    _tenant(),
    Column("id", String(32), primary_key=True),
    Column("branch", BigInteger),
    Column("position", BigInteger),
    Column("content_key", LargeBinary(32), nullable=False),
    Column("live_key", LargeBinary(32)),
    Column("detached_at", BigInteger),
    Column("characters", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("learn", Boolean, nullable=False),
    Column("learned_at", BigInteger),
    Column("losses", LargeBinary),
    Column("skipped", BigInteger, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("observed_at", BigInteger, nullable=False),
    Column("ingested_at", BigInteger, nullable=False),
    Column("stream", LargeBinary),
    Column("stream_key", LargeBinary(32)),
    Column("sequence", BigInteger),
    Column("origin", String(32), nullable=False),
    UniqueConstraint("tenant", "live_key"),
    Index("ix_ttt_documents_position", "tenant", "position"),
    Index("ix_ttt_documents_stream", "tenant", "stream_key", "position"),
)

chunks = Table(
    "ttt_chunks",
    metadata,
    _tenant(),
    Column("document", String(32), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("start_char", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    _of_document(),
)

passages = Table(
    "ttt_passages",
    metadata,
    _tenant(),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("document", String(32), nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    Column("start_char", BigInteger, nullable=False),
    Column("end_char", BigInteger, nullable=False),
    Column("terms", BigInteger, nullable=False),
    Column("embedding", LargeBinary, nullable=False),
    Column("token_vectors", LargeBinary),  # last: what reads the columns before it does not read this
    _of_document(),
    Index("ix_ttt_passages_document", "tenant", "document", "ordinal"),
)

postings = Table(
    "ttt_postings",
    metadata,
    _tenant(),
    Column("term", LargeBinary(160), primary_key=True),
    Column("passage", BigInteger, primary_key=True, autoincrement=False),
    Column("tf", BigInteger, nullable=False),
    Index("ix_ttt_postings_passage", "tenant", "passage"),
    sqlite_with_rowid=False,
)

blobs = Table(
    "ttt_blobs",
    metadata,
    _tenant(),
    Column("key", String(64), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

checkpoints = Table(
    "ttt_checkpoints",
    metadata,
    _tenant(),
    Column("id", String(32), primary_key=True),
    Column("branch", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("segment", BigInteger),
    Column("tokens", BigInteger, nullable=False),
    Column("digest", String(128), nullable=False),
    Column("model_fingerprint", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("blob", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("ix_ttt_checkpoints_position", "tenant", "position"),
)

snapshots = Table(
    "ttt_snapshots",
    metadata,
    _tenant(),
    Column("id", String(32), primary_key=True),
    Column("label", LargeBinary),
    Column("label_key", LargeBinary(32)),
    Column("branch", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", String(128)),
    Column("checkpoint", String(32)),
    Column("documents", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("rebuilt_from", String(32)),
    UniqueConstraint("tenant", "label_key"),
)

tombstones = Table(
    "ttt_tombstones",
    metadata,
    _tenant(),
    Column("id", LargeBinary(32), primary_key=True),
    Column("content_key", LargeBinary(32), nullable=False),
    Column("forgotten_at", BigInteger, nullable=False),
)

# Unfinished work of several transactions: a document, a blob, or (subject empty) a whole tenant, forked or imported.
uploads = Table(
    "ttt_uploads",
    metadata,
    _tenant(),
    Column("kind", String(16), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
)

# Children before parents: the order in which a tenant's rows can be deleted.
TENANT_TABLES: tuple[Table, ...] = (
    postings,
    passages,
    chunks,
    documents,
    checkpoints,
    blobs,
    snapshots,
    tombstones,
    branches,
    uploads,
)
