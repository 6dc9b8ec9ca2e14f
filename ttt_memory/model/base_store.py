"""Convert base weights once: any source to bf16 safetensors under this package's names, in the user's cache.

A conversion is a pure function of the source's files, the model's configuration and `CONVERSION_VERSION`; its folder is
named after them, so that a release with other defaults converts again beside the old one and never over it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttt_memory.artifacts import ARTIFACTS
from ttt_memory.cache_folder import discard, publish, scratch, sha256_of
from ttt_memory.errors import ModelFormatError, ModelNotFoundError
from ttt_memory.model.catalogue import (
    MANIFEST_FILE,
    PULL_COMMAND,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Converted,
    models_dir,
    read_converted,
    shipped,
)
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.llama import config_from_llama, from_llama
from ttt_memory.model.llama_source import LlamaSource, open_llama
from ttt_memory.model.transformer import Transformer

CONVERSION_VERSION = 1
"""Raise it when the same source and configuration must give other bytes."""

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` in tensors."""


def prepare(spec: str | Path, *, progress: Progress | None = None) -> Converted:
    """Converted weights of a published model's name or of a local path, converting them if that was not done yet.

    Raises:
        ModelNotFoundError: nothing of this name was fetched, or no such path.
        ModelFormatError: the files cannot be read or are of another kind of model.
    """
    name, path = locate(spec)
    source = open_llama(path)
    config = config_from_llama(source.hf_config)
    identity = _identity(name, source)
    folder = models_dir() / f"{name}-{_key(identity, config)}"
    if (converted := read_converted(folder)) is not None:
        return converted
    with scratch(models_dir()) as work:
        report = progress or (lambda _done, _total: None)
        _convert(name, source, config, identity=identity, work=work, progress=report)
        if folder.exists() and read_converted(folder) is None:
            discard(folder)
        publish(work, folder)
    if (converted := read_converted(folder)) is None:
        raise ModelFormatError(f"The converted weights in {folder} are not complete.", fix="Remove the folder.")
    return converted


def locate(spec: str | Path) -> tuple[str, Path]:
    """Name of a model and path of its source files. Raises ModelNotFoundError if they are not there."""
    artifact = ARTIFACTS.get(str(spec))
    if artifact is not None and artifact.kind == "base":
        if not artifact.present:
            raise ModelNotFoundError(
                f"The weights of {artifact.name!r} are not on this machine.", fix=PULL_COMMAND, model=artifact.name
            )
        return artifact.name, artifact.file(artifact.members[0].filename)
    path = Path(spec).expanduser().absolute()
    if not path.exists():
        raise ModelNotFoundError(
            f"There is no model {str(spec)!r}.",
            why="it is neither a published name nor a path",
            fix=f"Use {_known()}, or the path of a .gguf file or a safetensors folder.",
            model=str(spec),
        )
    return re.sub(r"[^a-z0-9._]+", "-", path.stem.lower()).strip("-.") or "model", path


def _known() -> str:
    return ", ".join(["tiny", *(a.name for a in ARTIFACTS.values() if a.kind == "base"), *shipped()])


def _identity(name: str, source: LlamaSource) -> dict[str, Any]:
    """What the conversion's bytes depend on: published hashes, else the files' sizes and times."""
    if name in ARTIFACTS and source.path.parent == ARTIFACTS[name].folder:
        artifact = ARTIFACTS[name]
        return {"wheel": artifact.wheel_sha256} | {m.filename: m.sha256 for m in artifact.members}
    stats = {file.name: file.stat() for file in source.files}
    return {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}


def _key(identity: dict[str, Any], config: ModelConfig) -> str:
    parts = json.dumps([CONVERSION_VERSION, identity, config.to_dict()], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def _convert(
    name: str, source: LlamaSource, config: ModelConfig, *, identity: dict[str, Any], work: Path, progress: Progress
) -> None:
    vocabulary = source.vocabulary()
    if vocabulary.vocab_size != config.vocab_size:
        raise ModelFormatError(f"The tokenizer has {vocabulary.vocab_size} ids, the model {config.vocab_size}.")
    (work / TOKENIZER_FILE).write_text(vocabulary.to_json(), encoding="utf-8")
    counted = _Counted(source.tensors, progress)
    try:
        tensors = from_llama(config, counted)
    except KeyError as error:
        raise ModelFormatError(f"{source.path} lacks the tensor {error}.", path=str(source.path)) from error
    save_file(_unshared(tensors), work / WEIGHTS_FILE)
    del tensors
    manifest = {
        "name": name,
        "parameters": sum(counted.elements.values()),
        "bytes": (work / WEIGHTS_FILE).stat().st_size,
        "sha256": sha256_of(work / WEIGHTS_FILE),
        "w0_sha256": load_net(work / WEIGHTS_FILE, config).initial_state().digest(),
        "config": config.to_dict(),
        "licence": source.licence,
        "source": {"path": str(source.path), "identity": identity},
        "format": CONVERSION_VERSION,
    }
    (work / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")


def load_net(weights: Path, config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """The network with its weights memory-mapped, copied only where `dtype` asks for other numbers. Takes no gradients.

    Raises ModelFormatError if the file does not fit the configuration.
    """
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"Cannot read {weights}.", why=str(error), path=str(weights)) from error
    tensors = {name: t.to(dtype) if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}
    with torch.device("meta"):
        net = Transformer(config)
    try:
        net.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelFormatError(f"{weights} does not fit the model.", why=str(error), path=str(weights)) from error
    return net.requires_grad_(False).eval()


class _Counted(Mapping[str, Tensor]):
    """Reports every tensor read, and keeps their sizes."""

    def __init__(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        self._tensors, self._progress = tensors, progress
        self.elements: dict[str, int] = {}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self.elements[name] = tensor.numel()
        self._progress(len(self.elements), len(self._tensors))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory: the file format has no aliases."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        own[name] = tensor.contiguous() if storage not in seen else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
    return own
