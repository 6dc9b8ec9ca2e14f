"""Reading an archive of archive.py into a tenant: all of it or nothing, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt_memory.archive import FORMAT
from ttt_memory.errors import CorruptionError, InvalidInputError, ModelMismatchError, TTTMemoryError
from ttt_memory.handle import importing
from ttt_memory.ingesting import store
from ttt_memory.ledger.records import CheckpointRow, Point
from ttt_memory.types import Document, Progress, ProgressCallback

if TYPE_CHECKING:
    from ttt_memory.handle import Handle
    from ttt_memory.notepad.embedders import Embedder

_MAX_MANIFEST = 64 << 20


def import_(
    path: Path, url: str, tenant: str | None, embedder: str | Embedder | None, progress: ProgressCallback | None
) -> tuple[Handle, str]:
    """Read an archive into a tenant that has nothing. Returns the open tenant and its name."""
    with _opened(path) as (archive, manifest):
        try:
            name, model = tenant or str(manifest["tenant"]), manifest["model"]
            with importing(url, name, model=model["spec"], embedder=embedder or str(manifest["embedder"])) as handle:
                _read(handle, archive, manifest, progress)
        except TTTMemoryError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise _not_whole(path, error) from error
        return handle, name


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """The archive and its manifest, after all of it was read and found to be what was written."""
    try:
        archive = zipfile.ZipFile(path)
        with contextlib.ExitStack() as stack:
            stack.enter_context(archive)
            manifest = _checked(archive)
            stack.pop_all()
    except TTTMemoryError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise InvalidInputError(f"Cannot read {path}.", why=why, fix="Name a file that `export` wrote.") from error
    except zipfile.BadZipFile as error:
        fix = "Name a file that `export` wrote; if this is one, it was damaged since: take another copy."
        raise CorruptionError(f"{path} is not a readable archive of a memory.", why=str(error), fix=fix) from error
    except Exception as error:  # whatever zipfile, zlib and json make of bytes that nobody wrote
        raise _not_whole(path, error) from error
    with archive:
        yield archive, manifest


def _not_whole(path: Path, error: Exception) -> CorruptionError:
    why = f"{type(error).__name__}: {error}"
    return CorruptionError(f"{path} is not whole.", why=why, fix="Take another copy, or export the memory again.")


def _checked(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest, after every member was found to be what it says."""
    if archive.getinfo("manifest.json").file_size > _MAX_MANIFEST:
        raise CorruptionError("The archive's manifest is too large to be one.")
    manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
    if manifest["format"] not in range(1, FORMAT + 1):
        raise CorruptionError(
            f"The archive has format {manifest['format']!r}; this release reads formats 1 to {FORMAT}.",
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
    rows, at = handle.tenant, 0
    points = {0: rows.head().point}
    entries = heapq.merge(
        _documents(archive, "documents.jsonl"),
        _documents(archive, "detached.jsonl"),
        key=lambda entry: entry["position"],
    )
    for count, entry in enumerate(entries):
        if entry["after"] != at:  # another line of history goes on here
            rows.restore(points[entry["after"]])
        at = entry["position"]
        points[at] = _append(handle, entry)
        if progress:
            progress(Progress("import", count + 1, manifest.get("documents", count + 1), count, None))
    end = manifest.get("at", at)
    if end != at:
        rows.restore(points[end])
    for entry in map(json.loads, archive.open("snapshots.jsonl")):
        point = points[entry.get("at", entry["documents"])]
        kept = _put(handle, archive, entry["weights"], point) if "weights" in entry else None
        rows.create_snapshot(
            entry["label"], point=point, digest=kept.digest if kept else None, checkpoint=kept.id if kept else None
        )
    _put(handle, archive, manifest["weights"], points[end])


def _documents(archive: zipfile.ZipFile, member: str) -> Iterator[dict[str, Any]]:
    """Entries of a member in order of position; format 1 has one line of history, without numbers."""
    if member not in archive.namelist():
        return
    with archive.open(member) as lines:
        for number, line in enumerate(lines, 1):
            yield {"position": number, "after": number - 1} | json.loads(line)


def _append(handle: Handle, entry: Mapping[str, Any]) -> Point:
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
    return row.point


def _put(handle: Handle, archive: zipfile.ZipFile, weights: Mapping[str, Any], point: Point) -> CheckpointRow:
    return handle.tenant.put_checkpoint(
        point,
        data=archive.read(weights["file"]),
        digest=weights["digest"],
        tokens=weights["tokens"],
        model_fingerprint=handle.model.fingerprint,
        backend=weights["backend"],
        kind="import",
    )
