"""Base models by name or path, each loaded once a process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import torch

from ttt_memory.artifacts import DEFAULT_MODEL
from ttt_memory.errors import CorruptionError
from ttt_memory.model.base_store import load_net, locate, prepare
from ttt_memory.model.catalogue import Converted, ModelInfo, damage, describe_model, list_models, remove_model
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.initialisation import (
    Initialisation,
    find_initialisation,
    initialised,
    read_initialisation,
    static_digest,
)
from ttt_memory.model.loaded import LoadedModel, fingerprint_of
from ttt_memory.model.processor import multiplies_bf16
from ttt_memory.model.tiny import tiny
from ttt_memory.model.tokenizer import BytePairTokenizer, Vocabulary
from ttt_memory.model.transformer import Transformer

__all__ = [
    "DEFAULT_MODEL",
    "ModelInfo",
    "check_weights",
    "default_dtype",
    "describe_model",
    "list_models",
    "load_model",
    "remove_model",
]

_TINY = "tiny"
_lock = threading.Lock()
_loaded: dict[tuple[str, int, torch.dtype], LoadedModel] = {}


def load_model(spec: str | Path = DEFAULT_MODEL, *, dtype: torch.dtype | None = None) -> LoadedModel:
    """A model ready for use; the same object at every call of a process.

    Args:
        spec: `tiny`; a published name (`smollm2-135m`); the path of a `.gguf` file or of a safetensors folder; the name
            (`smollm2-135m-ttt`) or `.safetensors` file of a learned initialisation, as `BASE::FILE` where its base is
            not a published one.
        dtype: of computing; default `default_dtype()`. `tiny` always computes in fp32.

    Raises:
        ModelNotFoundError: the weights are not on this machine; the error names the command that fetches them.
        ModelFormatError: the files cannot be read or are of another kind of model.
    """
    with _lock:
        if str(spec) == _TINY:
            return tiny()
        if (found := find_initialisation(spec)) is not None:
            return _learned(*found, dtype or default_dtype())
        _, path = locate(spec)
        key = (str(path), path.stat().st_mtime_ns, dtype or default_dtype())
        if key not in _loaded:
            _loaded[key] = _load(prepare(spec), key[2])
        return _loaded[key]


def default_dtype() -> torch.dtype:
    """bf16 where the machine multiplies it natively (AVX-512 BF16, AMX or CUDA), else fp32."""
    return torch.bfloat16 if torch.cuda.is_available() or multiplies_bf16() else torch.float32


def check_weights(spec: str | Path) -> None:
    """Hash the weights again, which takes about a second per GB. `tiny` has no file and always passes.

    Raises CorruptionError if the bytes are not what was written, ModelNotFoundError if there are none.
    """
    if (found := find_initialisation(spec)) is not None:
        learned = read_initialisation(found[1])
        learned.tensors()
        spec = found[0] or learned.base
    if str(spec) != _TINY and (wrong := damage(prepare(spec))):
        raise CorruptionError(
            f"The weights of {str(spec)!r} are damaged.",
            why=wrong,
            fix=f"ttt-memory model remove {spec}, then ttt-memory model pull",
            model=str(spec),
        )


def _load(converted: Converted, dtype: torch.dtype) -> LoadedModel:
    manifest = converted.manifest
    config = ModelConfig.from_dict(manifest["config"])
    tokenizer = BytePairTokenizer(Vocabulary.from_json(converted.tokenizer.read_text(encoding="utf-8")))
    return LoadedModel(
        name=manifest["name"],
        net=load_net(converted.weights, config, dtype),
        tokenizer=tokenizer,
        fingerprint=fingerprint_of(manifest["sha256"], manifest["w0_sha256"], tokenizer.fingerprint, config),
        compute_dtype=dtype,
    )


def _learned(base: str | None, path: Path, dtype: torch.dtype) -> LoadedModel:
    key = (f"{base}{path}", path.stat().st_mtime_ns, dtype)
    if key not in _loaded:
        initialisation = read_initialisation(path)
        _loaded[key] = _with(initialisation, base or initialisation.base, dtype)
    return _loaded[key]


def _with(initialisation: Initialisation, base: str, dtype: torch.dtype) -> LoadedModel:
    """A base model that starts from a learned W0, whose name covers both files and W0 as loaded."""
    static = None
    if base == _TINY:
        under = tiny()
        digest = under.fingerprint
    else:
        converted = prepare(base)
        under = _load(converted, dtype)
        digest, static = converted.manifest["sha256"], _static_digest(converted, under.net)
    net, tokenizer = under.net, under.tokenizer
    learned = initialised(net, initialisation, base_sha256=static)
    both = hashlib.sha256(f"{digest} {initialisation.sha256}".encode()).hexdigest()
    return LoadedModel(
        name=initialisation.name,
        net=learned,
        tokenizer=tokenizer,
        fingerprint=fingerprint_of(both, learned.initial_state().digest(), tokenizer.fingerprint, learned.config),
        compute_dtype=net.dtype,
    )


def _static_digest(converted: Converted, net: Transformer) -> str:
    """`static_digest` of converted weights, computed once and kept beside them."""
    note = converted.folder / "static.sha256"
    try:
        return note.read_text(encoding="ascii")
    except OSError:
        digest = static_digest(net)
    partial = note.with_name(f".{note.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
        partial.write_text(digest, encoding="ascii")
        partial.replace(note)
    return digest
