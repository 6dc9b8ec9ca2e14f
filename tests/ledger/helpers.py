"""Short ways to write into a ledger, and to see every stored byte of a tenant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from ttt_memory.ledger import CheckpointRow, DocumentRow, NewDocument, NewPassage, Point, TenantLedger
from ttt_memory.ledger.schema import TENANT_TABLES, tenants

WIDTH = 8
ROOT = Path(__file__).parents[2]


def cut(text: str, width: int = 40) -> list[NewPassage]:
    """Passages of `width` characters, whitespace-separated terms, a vector made from the offsets."""
    passages = []
    for start in range(0, len(text), width):
        piece = text[start : start + width]
        terms: dict[str, int] = {}
        for term in re.findall(r"\S+", piece):
            terms[term] = terms.get(term, 0) + 1
        vector = np.full(WIDTH, start % 97, dtype=np.float16).tobytes()
        passages.append(NewPassage(start, start + len(piece), terms, vector))
    return passages


def add(
    ledger: TenantLedger,
    text: str,
    *,
    stream: str | None = None,
    sequence: int | None = None,
    expected_version: int | None = None,
    passages: list[NewPassage] | None = None,
    **rest: Any,
) -> DocumentRow:
    """Append a text with its passages; ten characters to a token."""
    new = NewDocument(
        text=text,
        content_key=ledger.content_key(text, stream, sequence),
        tokens=len(text) // 10,
        stream=stream,
        sequence=sequence,
        **rest,
    )
    return ledger.append(new, cut(text) if passages is None else passages, expected_version=expected_version)


def checkpoint(ledger: TenantLedger, point: Point, data: bytes = b"state", **rest: Any) -> CheckpointRow:
    """Store a checkpoint of model `m`."""
    values: Mapping[str, Any] = {
        "digest": "d",
        "tokens": 1,
        "model_fingerprint": "m",
        "backend": {"device": "cpu"},
        **rest,
    }
    return ledger.put_checkpoint(point, data=data, **values)


def texts(ledger: TenantLedger, point: Point | None = None) -> list[str]:
    """The texts of a point's lineage, in order."""
    return [ledger.text(row.id, detached=True) for row in ledger.documents(point=point)]


def dump(ledger: TenantLedger) -> list[str]:
    """Every stored row of the tenant, its own row included."""
    rows: list[str] = []
    with ledger._read() as connection:
        for table in TENANT_TABLES:
            query = select(table).where(table.c.tenant == ledger._tenant)
            rows += sorted(f"{table.name} {tuple(row)!r}" for row in connection.execute(query))
        rows += [repr(tuple(connection.execute(select(tenants).where(tenants.c.id == ledger._tenant)).one()))]
    return rows


def spawn(*arguments: str, **pipes: Any) -> subprocess.Popen[str]:
    """Start a worker process (`tests/ledger/worker.py`)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "tests.ledger.worker", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
