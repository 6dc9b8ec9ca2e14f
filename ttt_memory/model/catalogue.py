"""What base weights and embedders are on this machine. Loads no heavy library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ttt_memory.artifacts import ARTIFACTS, Artifact
from ttt_memory.cache_folder import cache_dir, discard, sha256_of
from ttt_memory.errors import ModelNotFoundError

PULL_COMMAND = "ttt-memory model pull"
SHIPPED = Path(__file__).parent / "weights"
"""Folder of the files that come with the package, each `NAME.safetensors`."""
WEIGHTS_FILE, TOKENIZER_FILE, MANIFEST_FILE = "model.safetensors", "tokenizer.json", "manifest.json"


@dataclass(frozen=True)
class ModelInfo:
    """One model or embedder, for people.

    Attributes:
        state: `ready`; `fetched` (converted at first use); `absent`; `built in`.
        parameters: weights of the network as published; None if unknown.
        bytes: on this machine's disk.
        source: where it came from.
        sha256: file names to hashes, recorded when they were fetched or converted.
        path: folder of what is loaded; None if nothing is there.
    """

    name: str
    kind: Literal["base", "embedder"]
    state: Literal["ready", "fetched", "absent", "built in"]
    parameters: int | None
    bytes: int
    licence: str
    source: str
    sha256: dict[str, str]
    path: Path | None


@dataclass(frozen=True)
class Converted:
    """Converted weights of one base model: a folder with weights, tokenizer and manifest.

    The manifest records: `name`, `parameters`, `bytes` and `sha256` of the weights file, `w0_sha256` (the initial fast
    weights), `config`, `licence`, `source` (path, and hashes where known), `format`.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS_FILE

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's vocabulary."""
        return self.folder / TOKENIZER_FILE


def shipped() -> dict[str, Path]:
    """Learned initialisations that come with the package, by name; see `initialisation.py`."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def base_of(path: Path) -> str:
    """Name of the base model that a learned initialisation starts from."""
    return _metadata(path)["base"]


def models_dir() -> Path:
    """Folder of the converted weights."""
    return cache_dir() / "models"


def read_converted(folder: Path) -> Converted | None:
    """The converted weights in `folder`; None unless they are complete (sizes are compared, hashes are not)."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        whole = (folder / WEIGHTS_FILE).stat().st_size == manifest["bytes"] and (folder / TOKENIZER_FILE).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Converted(folder, manifest) if whole else None


def damage(converted: Converted) -> str | None:
    """Compare the weights' hash with the recorded one. Returns what is wrong, or None if they are intact."""
    try:
        found = sha256_of(converted.weights)
    except OSError as error:
        return str(error)
    expected = converted.manifest["sha256"]
    return None if found == expected else f"{converted.weights} has SHA-256 {found}, {expected} was written"


def list_models() -> list[ModelInfo]:
    """Every published model, whether or not it is here, then every converted local one, then the built-in one."""
    converted = _all_converted()
    published = [_published(artifact, converted) for artifact in ARTIFACTS.values()]
    local = [_local(c) for c in converted if c.manifest["name"] not in ARTIFACTS]
    return [*published, *map(_learned, shipped().values()), *local, _TINY]


def describe_model(spec: str | Path) -> ModelInfo:
    """The model of this name, or made from this path. Raises ModelNotFoundError if there is none."""
    for info in list_models():
        if info.name == str(spec) or (info.kind == "base" and info.source == str(Path(spec).absolute())):
            return info
    raise ModelNotFoundError(
        f"There is no model {str(spec)!r} on this machine.",
        fix=f"See ttt-memory model list, or run {PULL_COMMAND}.",
        model=str(spec),
    )


def remove_model(name: str) -> int:
    """Delete everything kept for a model. Returns the bytes freed. Files outside the cache are never touched.

    Raises ModelNotFoundError if nothing is kept under this name.
    """
    folders = [c.folder for c in _all_converted() if c.manifest["name"] == name]
    if name in ARTIFACTS and ARTIFACTS[name].folder.is_dir():
        folders.append(ARTIFACTS[name].folder)
    if not folders:
        raise ModelNotFoundError(f"Nothing is kept for a model {name!r}.", fix="See ttt-memory model list.", model=name)
    freed = sum(_folder_bytes(folder) for folder in folders)
    for folder in folders:
        discard(folder)
    return freed


_TINY = ModelInfo("tiny", "base", "built in", None, 0, "Apache-2.0", "seeded test model of this package", {}, None)


def _all_converted() -> list[Converted]:
    if not models_dir().is_dir():
        return []
    found = (read_converted(folder) for folder in sorted(models_dir().iterdir()) if not folder.name.startswith("."))
    return [converted for converted in found if converted is not None]


def _published(artifact: Artifact, converted: list[Converted]) -> ModelInfo:
    mine = [c for c in converted if c.manifest["name"] == artifact.name]
    newest = max(mine, key=lambda c: c.folder.stat().st_mtime, default=None)
    used = artifact.folder if artifact.kind == "embedder" else (newest.folder if newest else None)
    present = artifact.present
    ready = present if artifact.kind == "embedder" else newest is not None
    hashes = {member.filename: member.sha256 for member in artifact.members} if present else {}
    return ModelInfo(
        name=artifact.name,
        kind=artifact.kind,
        state="ready" if ready else ("fetched" if present else "absent"),
        parameters=artifact.parameters,
        bytes=sum(_folder_bytes(folder) for folder in (artifact.folder, *(c.folder for c in mine))),
        licence=artifact.licence,
        source=artifact.source,
        sha256=hashes | ({WEIGHTS_FILE: newest.manifest["sha256"]} if newest else {}),
        path=used if ready else None,
    )


def _learned(path: Path) -> ModelInfo:
    metadata = _metadata(path)
    base = metadata["base"]
    there = base == _TINY.name or (base in ARTIFACTS and ARTIFACTS[base].present)
    return ModelInfo(
        name=path.stem,
        kind="base",
        state="ready" if there else "absent",
        parameters=ARTIFACTS[base].parameters if base in ARTIFACTS else None,
        bytes=path.stat().st_size,
        licence=json.loads(metadata["training"]).get("licence", "unknown"),
        source=f"this package, on {base}",
        sha256={path.name: sha256_of(path)},
        path=path.parent,
    )


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata())


def _local(converted: Converted) -> ModelInfo:
    manifest = converted.manifest
    return ModelInfo(
        name=manifest["name"],
        kind="base",
        state="ready",
        parameters=manifest["parameters"],
        bytes=_folder_bytes(converted.folder),
        licence=manifest["licence"],
        source=manifest["source"]["path"],
        sha256={WEIGHTS_FILE: manifest["sha256"]},
        path=converted.folder,
    )


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
