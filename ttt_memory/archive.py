"""One memory as one file: a ZIP of JSON Lines and encoded weights, each member's SHA-256 in the manifest.

    manifest.json       format, tenant, model, embedder, digest of the head's weights, members with size and SHA-256
    documents.jsonl     the live documents in ledger order, with their texts and learning results
    snapshots.jsonl     snapshots whose documents all lie on the live line
    weights/*.ttt       states (snapshots/codec.py): of the head, and of every snapshot that has one

Passages, vectors and postings are derived from the texts when the archive is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ttt_memory.errors import ConflictError, CorruptionError, InvalidInputError, ModelMismatchError, TTTMemoryError
from ttt_memory.ingesting import store
from ttt_memory.ledger.records import CheckpointRow, DocumentRow, Point
from ttt_memory.types import Document, Progress, ProgressCallback

if TYPE_CHECKING:
    from ttt_memory.handle import Handle
    from ttt_memory.notepad.embedders import Embedder

FORMAT = 1
_MAX_MANIFEST = 64 << 20


def export(handle: Handle, tenant: str, path: Path, progress: ProgressCallback | None) -> Path:
    """Write the archive beside its final name and link it there when it is whole. Needs the write lock."""
    handle.learn(progress)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "x", zipfile.ZIP_DEFLATED) as archive:
            _write(handle, tenant, archive, progress)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.link(partial, path)  # unlike a rename, it never replaces a file
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists already.", fix="Give another name, or remove it first.") from error
    except OSError as error:
        raise InvalidInputError(f"Cannot write {path}.", why=error.strerror or str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def import_(
    path: Path, url: str, tenant: str | None, embedder: str | Embedder | None, progress: ProgressCallback | None
) -> str:
    """Read an archive into a tenant that has no documents. Returns the tenant's name."""
    from ttt_memory.handle import open_handle

    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _checked(archive)
            name = tenant or str(manifest["tenant"])
            model, embedder = manifest["model"], embedder or str(manifest["embedder"])
            handle = open_handle(url, name, model=model["spec"], embedder=embedder, wait=True, rederive=False)
            try:
                if handle.tenant.counts().documents or handle.tenant.counts().detached:
                    raise ConflictError(f"Tenant {name!r} has documents already.", fix="Import under another name.")
                with handle.writing():
                    try:
                        _read(handle, archive, manifest, progress)
                    except BaseException:
                        handle.tenant.drop()  # nothing half-written: the next import finds the name free
                        raise
            finally:
                handle.close()
            return name
    except TTTMemoryError:
        raise
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise CorruptionError(f"{path} is not a readable archive of a memory.", why=str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(f"{path} is not whole.", why=f"{type(error).__name__}: {error}") from error


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


def _write(handle: Handle, tenant: str, archive: zipfile.ZipFile, progress: ProgressCallback | None) -> None:
    members, rows = _Members(archive), handle.tenant
    documents = rows.documents()
    members.add("documents.jsonl", _document_lines(handle, documents, progress))
    line = {row.id for row in documents}
    checkpoints = {row.id: row for row in rows.checkpoints()}
    snapshots = []
    for row in rows.snapshots():
        held = rows.documents(point=row.point)
        if not all(document.id in line for document in held):
            continue  # it belongs to a line that was left by `restore`
        entry: dict[str, Any] = {"label": row.label, "documents": len(held), "digest": row.digest}
        if checkpoint := checkpoints.get(row.checkpoint or ""):
            entry["weights"] = _weights(handle, members, checkpoint)
        snapshots.append(entry)
    members.add("snapshots.jsonl", (_line(entry) for entry in snapshots))
    head = _weights(handle, members, handle.learner.checkpoint())
    manifest = {
        "format": FORMAT,
        "tenant": tenant,
        "model": rows.head().model,
        "embedder": handle.embedder.name,
        "weights": head,
        "members": members.listed,
    }
    archive.writestr("manifest.json", json.dumps(manifest, indent=1))


def _document_lines(handle: Handle, documents: list[DocumentRow], progress: ProgressCallback | None) -> Iterator[bytes]:
    for number, row in enumerate(documents):
        yield _line(
            {
                "text": handle.tenant.text(row.id),
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
        if progress:
            progress(Progress("export", number + 1, len(documents), number, None))


def _weights(handle: Handle, members: _Members, row: CheckpointRow) -> dict[str, Any]:
    name = f"weights/{row.digest}.ttt"
    if name not in members.listed:
        members.add(name, iter([handle.tenant.load_blob(row.blob)]))
    return {"file": name, "digest": row.digest, "tokens": row.tokens, "backend": row.backend}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _checked(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest, after every member was found to be what it says."""
    if archive.getinfo("manifest.json").file_size > _MAX_MANIFEST:
        raise CorruptionError("The archive's manifest is too large to be one.")
    manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
    if manifest["format"] != FORMAT:
        raise CorruptionError(
            f"The archive has format {manifest['format']!r}; this release reads format {FORMAT}.",
            fix="Use the release that wrote it, or a newer one.",
        )
    for name, expected in manifest["members"].items():
        digest, size = hashlib.sha256(), 0
        with archive.open(name) as member:
            while size <= expected["size"] and (part := member.read(1 << 20)):
                digest.update(part)
                size += len(part)
        if size != expected["size"] or digest.hexdigest() != expected["sha256"]:
            raise CorruptionError(f"{name} in the archive is not what was written.", member=name)
    return manifest


def _read(
    handle: Handle, archive: zipfile.ZipFile, manifest: Mapping[str, Any], progress: ProgressCallback | None
) -> None:
    if manifest["model"]["fingerprint"] != handle.model.fingerprint:
        raise ModelMismatchError(
            "The archive's weights were learned with another model than the one on this machine.",
            why=f"fingerprint {manifest['model']['fingerprint'][:12]} is not {handle.model.fingerprint[:12]}",
            fix="Install the model it names, or ingest its documents.jsonl into a new memory.",
            pinned=manifest["model"],
        )
    snapshots = [json.loads(line) for line in archive.open("snapshots.jsonl")]
    count = 0
    with archive.open("documents.jsonl") as lines:
        _snapshots_at(handle, archive, snapshots, 0)
        for count, entry in enumerate(_parsed(lines), 1):
            document = Document(
                text=entry["text"],
                metadata=entry["metadata"],
                observed_at=datetime.fromisoformat(entry["observed_at"]),
                stream=entry["stream"],
                sequence=entry["sequence"],
                origin=entry["origin"],
            )
            row = store(handle, document, learn=entry["learn"], progress=None)
            if entry["losses"]:
                handle.tenant.record_learning(row.id, losses=entry["losses"], skipped=entry["skipped"])
            _snapshots_at(handle, archive, snapshots, count)
            if progress:
                progress(Progress("import", count, count, count - 1, None))
    _put(handle, archive, manifest["weights"])


def _parsed(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


def _snapshots_at(handle: Handle, archive: zipfile.ZipFile, snapshots: list[dict[str, Any]], count: int) -> None:
    for entry in snapshots:
        if entry["documents"] == count:
            row = _put(handle, archive, entry["weights"]) if "weights" in entry else None
            head = handle.tenant.head()
            handle.tenant.create_snapshot(
                entry["label"],
                point=Point(head.branch, head.position),
                digest=row.digest if row else None,
                checkpoint=row.id if row else None,
            )


def _put(handle: Handle, archive: zipfile.ZipFile, weights: Mapping[str, Any]) -> CheckpointRow:
    head = handle.tenant.head()
    return handle.tenant.put_checkpoint(
        Point(head.branch, head.position),
        data=archive.read(weights["file"]),
        digest=weights["digest"],
        tokens=weights["tokens"],
        model_fingerprint=handle.model.fingerprint,
        backend=weights["backend"],
        kind="import",
    )
