"""Small texts and a small memory for the tests of the laws."""

import random
import sqlite3
from pathlib import Path

from ttt_memory import CompressedMemory

WORDS = tuple(
    """river stone harbour lantern engine copper winter signal garden letter mirror bridge falcon market shadow thread
    island compass violet orchard thunder pepper marble canyon velvet meadow anchor ribbon cinder""".split()
)


def text(seed: int, words: int = 60) -> str:
    """Prose of its own for every seed."""
    draw = random.Random(seed)
    sentences = []
    while words > 0:
        length = draw.randint(6, 12)
        sentences.append(" ".join(draw.choices(WORDS, k=length)).capitalize() + ".")
        words -= length
    return f"Note {seed}. " + " ".join(sentences)


def open_tiny(folder: Path, tenant: str = "a", **options) -> CompressedMemory:
    return CompressedMemory.open(f"sqlite:///{folder / 'memory.db'}", tenant=tenant, model="tiny", **options)


def digest(memory: CompressedMemory) -> str:
    return memory.stats().digest


def digest_of_fresh(folder: Path, texts: list[str]) -> str:
    """Digest of a memory that reads these texts and nothing else."""
    folder.mkdir()
    with open_tiny(folder) as memory:
        for body in texts:
            memory.ingest(body)
        return digest(memory)


def tenant_bytes(folder: Path, tenant: str) -> dict[str, list[tuple]]:
    """Every stored row of one tenant, by table."""
    with sqlite3.connect(folder / "memory.db") as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        number = connection.execute("SELECT id FROM ttt_tenants WHERE name=?", (tenant.encode(),)).fetchone()
        if number is None:
            number = connection.execute("SELECT id FROM ttt_tenants WHERE name=?", (tenant,)).fetchone()
        rows = {}
        for table in tables:
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            key = "tenant" if "tenant" in columns else "id" if table == "ttt_tenants" else None
            if key:
                found = connection.execute(f"SELECT * FROM {table} WHERE {key}=?", number)
                rows[table] = sorted(found.fetchall(), key=repr)
        return rows
