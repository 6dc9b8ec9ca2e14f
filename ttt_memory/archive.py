"""One memory as one file: a ZIP of JSON Lines and encoded weights, each member's SHA-256 in the manifest.

    manifest.json       format, tenant, model, embedder, digest of the head's weights, members with size and SHA-256
    documents.jsonl     the live documents in ledger order, with their texts and learning results
    detached.jsonl      the same for those that only snapshots hold, on lines that were left by `restore`
    snapshots.jsonl     every snapshot, oldest first
    weights/*.ttt       states (snapshots/codec.py): of the head, and of every snapshot that has one

A document's `position` grows in the order of ingestion, and `after` is the position of the one that it was read after.
Passages, vectors and postings are derived from the texts when the archive is read (archive_import.py).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt_memory.errors import InvalidInputError
from ttt_memory.ledger.records import CheckpointRow, DocumentRow
from ttt_memory.types import Progress, ProgressCallback

if TYPE_CHECKING:
    from ttt_memory.handle import Handle

FORMAT = 2


def export(handle: Handle, tenant: str, path: Path, progress: ProgressCallback | None) -> Path:
    """Write the archive beside its final name and link it there when it is whole. Needs the write lock."""
    head = handle.settled()
    if head is None:
        handle.learn(progress)
        head = handle.learner.checkpoint()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "x", zipfile.ZIP_DEFLATED) as archive:
            _write(handle, tenant, archive, head, progress)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.link(partial, path)  # unlike a rename, it never replaces a file
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists already.", fix="Give another name, or remove it first.") from error
    except OSError as error:
        fix = "Name a new file in a folder that exists, that you may write to, on a disk with room."
        raise InvalidInputError(f"Cannot write {path}.", why=error.strerror or str(error), fix=fix) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


class _Members:
    """Writes members of an archive and remembers their sizes and digests for the manifest."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.listed: dict[str, dict[str, Any]] = {}

    def add(self, name: str, parts: Iterator[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with self.archive.open(name, "w", force_zip64=True) as member:
            for part in parts:
                member.write(part)
                digest.update(part)
                size += len(part)
        self.listed[name] = {"sha256": digest.hexdigest(), "size": size}


def _write(
    handle: Handle, tenant: str, archive: zipfile.ZipFile, head: CheckpointRow, progress: ProgressCallback | None
) -> None:
    members, rows = _Members(archive), handle.tenant
    live, checkpoints = rows.documents(), {row.id: row for row in rows.checkpoints()}
    detached: dict[int, DocumentRow] = {}
    after = _predecessors(live)
    snapshots = []
    for row in rows.snapshots():
        held = rows.documents(point=row.point)
        after |= _predecessors(held)
        detached |= {document.position: document for document in held if not document.live}
        entry: dict[str, Any] = {"label": row.label, "documents": len(held), "digest": row.digest, "at": _end(held)}
        if checkpoint := checkpoints.get(row.checkpoint or ""):
            entry["weights"] = _weights(handle, members, checkpoint)
        snapshots.append(entry)
    total = len(live) + len(detached)
    members.add("documents.jsonl", _document_lines(handle, live, after, _counted(progress, 0, total)))
    left = [detached[position] for position in sorted(detached)]
    members.add("detached.jsonl", _document_lines(handle, left, after, _counted(progress, len(live), total)))
    members.add("snapshots.jsonl", (_line(entry) for entry in snapshots))
    manifest = {
        "format": FORMAT,
        "tenant": tenant,
        "model": rows.head().model,
        "embedder": handle.embedder.name,
        "at": _end(live),
        "documents": total,
        "weights": _weights(handle, members, head),
        "members": members.listed,
    }
    archive.writestr("manifest.json", json.dumps(manifest, indent=1))


def _predecessors(line: list[DocumentRow]) -> dict[int, int]:
    """For every position of a line, the position before it; 0 before the first."""
    positions = [row.position for row in line]
    return dict(zip(positions, [0, *positions], strict=False))


def _end(line: list[DocumentRow]) -> int:
    return line[-1].position if line else 0


def _counted(progress: ProgressCallback | None, done: int, total: int) -> Callable[[], None]:
    count = itertools.count(done)

    def step() -> None:
        number = next(count)
        if progress:
            progress(Progress("export", number + 1, total, number, None))

    return step


def _document_lines(
    handle: Handle, documents: list[DocumentRow], after: Mapping[int, int], step: Callable[[], None]
) -> Iterator[bytes]:
    for row in documents:
        yield _line(
            {
                "text": handle.tenant.text(row.id, detached=True),
                "position": row.position,
                "after": after[row.position],
                "metadata": row.metadata,
                "observed_at": row.observed_at.isoformat(),
                "stream": row.stream,
                "sequence": row.sequence,
                "origin": row.origin,
                "learn": row.learn,
                "losses": row.losses,
                "skipped": row.skipped,
            }
        )
        step()


def _weights(handle: Handle, members: _Members, row: CheckpointRow) -> dict[str, Any]:
    name = f"weights/{row.digest}.ttt"
    if name not in members.listed:
        members.add(name, iter([handle.tenant.load_blob(row.blob)]))
    return {"file": name, "digest": row.digest, "tokens": row.tokens, "backend": row.backend}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
